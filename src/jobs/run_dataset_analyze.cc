// pmetal dataset analyze: what is in a dataset: formats, lengths, packing.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_analyze.h"

namespace pmetal::jobs {

void run_dataset_analyze(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetAnalyzeOptions>();
  const BuilderOfModel builder = builder_for(local_tokenizer(context, o.model), to_data(o.train_on), o.max_seq_len);
  context.phase("resolving_dataset", o.path);
  const data::AnalyzeResult r = data::analyze({.path = local_dataset(context, o.path),
                                               .split = o.split,
                                               .columns = {},
                                               .builder = builder.get(),
                                               .max_length = o.max_seq_len});
  Json j{{"files", r.files},
         {"rows", r.rows},
         {"malformed", r.malformed},
         {"duplicates", r.duplicates},
         {"formats", r.formats},
         {"unit", r.is_tokens ? "tokens" : "characters"},
         {"total", r.lengths.total},
         {"mean", r.lengths.mean},
         {"median", r.lengths.median},
         {"p95", r.lengths.p95},
         {"p99", r.lengths.p99},
         {"shortest", r.lengths.shortest},
         {"longest", r.lengths.longest}};
  if (r.is_tokens) {
    j["truncated"] = r.truncated;
    j["nothing_learned"] = r.nothing_learned;
    j["learned_tokens"] = r.learned_tokens;
    j["suggested_max_length"] = r.suggested_max_length;
    j["packing_length"] = r.packing_length;
    j["packing_fill"] = r.packing_fill;
  }
  if (o.detailed || context.json) {
    j["columns"] = r.columns;
    j["turns_by_role"] = r.turns_by_role;
    j["problems"] = problems_json(r.problems);
  }
  Json bins = Json::array();
  for (const data::LengthBin& b : r.lengths.histogram)
    bins.push_back({{"low", b.low}, {"high", b.high}, {"count", b.count}});
  if (context.json) {
    j["histogram"] = bins;
    context.data() << j.dump(2) << "\n";
    return;
  }
  print_table(context, j);
  context.data() << "\n" << histogram_text(r.lengths.histogram);
}

}  // namespace pmetal::jobs
