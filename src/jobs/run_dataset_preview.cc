// pmetal dataset preview: show rows as they will be trained on.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_preview.h"

namespace pmetal::jobs {

void run_dataset_preview(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetPreviewOptions>();
  BuilderOfModel builder = builder_for(local_tokenizer(context, o.model), to_data(o.train_on), o.max_seq_len);
  if (!builder) {
    context.log(LogLevel::kInfo, "without --model, chats are shown as ChatML and no token borders");
    builder = std::make_shared<data::ExampleBuilder>(data::Encoder{}, renderer_for("chatml", std::nullopt),
                                                     data::ExampleOptions{.train_on = to_data(o.train_on)});
  }
  const auto rows = data::preview({.path = local_dataset(context, o.path),
                                   .split = o.split,
                                   .columns = {},
                                   .builder = builder.get(),
                                   .max_length = o.max_seq_len},
                                  o.n);
  if (context.json) {
    Json all = Json::array();
    for (const data::PreviewRow& r : rows) {
      Json spans = Json::array();
      for (const data::Span& s : r.learned) spans.push_back({s.begin, s.end});
      all.push_back({{"where", r.where},
                     {"format", std::string(data::name_of(r.format))},
                     {"text", r.text},
                     {"learned", spans},
                     {"token_borders", r.token_borders}});
    }
    context.data() << all.dump(2) << "\n";
    return;
  }
  for (const data::PreviewRow& r : rows) context.data() << preview_text(r, context.colour) << "\n";
}

}  // namespace pmetal::jobs
