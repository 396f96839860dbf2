// pmetal dataset formats: the accepted record formats.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_formats.h"

namespace pmetal::jobs {

void run_dataset_formats(const JobOptions&, JobContext& context) {
  if (context.json) {
    Json all = Json::array();
    for (const data::FormatInfo& f : data::format_table())
      all.push_back(
          {{"name", std::string(f.name)}, {"columns", std::string(f.columns)}, {"meaning", std::string(f.meaning)}});
    context.data() << all.dump(2) << "\n";
    return;
  }
  for (const data::FormatInfo& f : data::format_table())
    context.data() << fmt::format("{:<20} {:<36} {}\n", f.name, f.columns, f.meaning);
}

}  // namespace pmetal::jobs
