#include "jobs/specs/list.h"

#include "base/nearest.h"
#include "jobs/describe.h"
#include "jobs/listing.h"

namespace pmetal::jobs {
namespace {

using Options = ListOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(table), .kind = kText, .group = "Output", .help = "one table only, or all", .value_name = "TABLE",
     .is_positional = true},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const std::string& table = job.as<ListOptions>().table;
  if (table == "all") return;
  std::vector<std::string_view> names = {"all"};
  for (const Listing& listing : all_listings()) {
    names.push_back(listing.name);
    if (listing.name == table) return;
  }
  issues.push_back({"table", fmt::format("must be one of {}, is \"{}\"{}", fmt::join(names, ", "), table,
                                         did_you_mean(table, names))});
}

}  // namespace

extern const JobSpec spec_list = {
    .name = "list",
    .summary = "list what this build has: commands, element types, ...",
    .examples = "list\nlist commands --json",
    .fields = kFields,
    .options = options_type<ListOptions>(),
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
