// "did you mean": the known name closest to what was typed.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace pmetal {

// edits (insert, delete, replace, swap of neighbours) that turn a into b; '-' and '_' count as the same letter
int edit_distance(std::string_view a, std::string_view b);

// the candidate with the fewest edits; empty when none is near (more than a third of its letters, or 3, would change)
std::string_view nearest_name(std::string_view typed, std::span<const std::string_view> candidates);

// `; did you mean "x"?`, or an empty string when nothing is near
std::string did_you_mean(std::string_view typed, std::span<const std::string_view> candidates);

}  // namespace pmetal
