#include "base/nearest.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

namespace pmetal {

int edit_distance(std::string_view a, std::string_view b) {
  const auto same = [](char x, char y) { return x == y || ((x == '-' || x == '_') && (y == '-' || y == '_')); };
  const size_t columns = b.size() + 1;
  std::vector<int> rows(3 * columns);  // optimal string alignment needs the last two rows
  int *before = rows.data(), *previous = before + columns, *current = previous + columns;
  for (size_t j = 0; j < columns; ++j) previous[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    current[0] = static_cast<int>(i);
    for (size_t j = 1; j < columns; ++j) {
      const int replace = previous[j - 1] + (same(a[i - 1], b[j - 1]) ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, replace});
      if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
        current[j] = std::min(current[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

std::string_view nearest_name(std::string_view typed, std::span<const std::string_view> candidates) {
  constexpr size_t kLongest = 256;  // longer words are not typing slips, and the table grows with the product
  std::string_view best;
  int best_distance = 0;
  if (typed.size() > kLongest) return best;
  for (const std::string_view candidate : candidates) {
    const int limit = std::max(3, static_cast<int>(candidate.size()) / 3);
    const int distance = edit_distance(typed, candidate);
    const bool shares_nothing = distance >= static_cast<int>(std::max(typed.size(), candidate.size()));
    if (distance > limit || shares_nothing) continue;
    if (best.empty() || distance < best_distance) best = candidate, best_distance = distance;
  }
  return best;
}

std::string did_you_mean(std::string_view typed, std::span<const std::string_view> candidates) {
  const std::string_view best = nearest_name(typed, candidates);
  return best.empty() ? std::string() : fmt::format("; did you mean \"{}\"?", best);
}

}  // namespace pmetal
