// Where the reference library's Unicode data differ from utf8proc's and PCRE2's.
#pragma once

#include <array>
#include <cstdint>

namespace pmetal::text {

struct ClassUpdate {
  uint32_t first, last;
  uint16_t set, clear;  // bits of CharClass
};
struct CodeRange {
  uint32_t first, last;
};
struct LowerUpdate {
  uint32_t first, last;
  int32_t distance;
};
struct CategoryUpdate {
  uint32_t first, last;
  char category[3];
};
extern const std::array<ClassUpdate, 231> kClassUpdates;
extern const std::array<CodeRange, 47> kNotNormalized;
extern const std::array<LowerUpdate, 10> kLowerUpdates;
extern const std::array<CategoryUpdate, 126> kRegexUpdates;

}  // namespace pmetal::text
