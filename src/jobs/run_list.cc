// `pmetal list`: the tables of this build.
#include <algorithm>
#include <ostream>

#include <nlohmann/json.hpp>

#include "jobs/context.h"
#include "jobs/listing.h"
#include "jobs/spec.h"
#include "jobs/specs/list.h"

namespace pmetal::jobs {

void run_list(const JobOptions& job, JobContext& context) {
  const std::string& table = job.as<ListOptions>().table;
  Json document = Json::object();
  std::string text;
  for (const Listing& listing : all_listings()) {
    if (table != "all" && table != listing.name) continue;
    const std::vector<ListRow> rows = listing.rows();
    size_t width = 0;
    for (const ListRow& row : rows) width = std::max(width, row.name.size());
    text += fmt::format("{}{}\n", text.empty() ? "" : "\n", listing.title);
    Json& entries = document[std::string(listing.name)] = Json::array();
    for (const ListRow& row : rows) {
      text += row.detail.empty() ? fmt::format("  {}\n", row.name)
                                 : fmt::format("  {:<{}}  {}\n", row.name, width, row.detail);
      entries.push_back({{"name", row.name}, {"detail", row.detail}});
    }
  }
  context.data() << (context.json ? document.dump(2) + "\n" : text);
}

}  // namespace pmetal::jobs
