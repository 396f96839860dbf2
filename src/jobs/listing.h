// The tables that `pmetal list` prints: what this build can do, by name.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::jobs {

struct ListRow {
  std::string name, detail;
};

struct Listing {
  std::string_view name;   // "commands"
  std::string_view title;  // "Commands"
  std::vector<ListRow> (*rows)();
};

std::span<const Listing> all_listings();

}  // namespace pmetal::jobs
