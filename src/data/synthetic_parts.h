// Shared between the parts of the generator: words, picks, and the single questions of each task.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/rng.h"
#include "data/synthetic.h"

namespace pmetal::data::synthetic {

inline int64_t between(PhiloxStream& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
}
inline std::string_view pick(PhiloxStream& random, std::span<const std::string_view> words) {
  return words[random.below(words.size())];
}

SyntheticRow arithmetic(PhiloxStream& random, int difficulty);
SyntheticRow sorting(PhiloxStream& random, int difficulty);
SyntheticRow dates(PhiloxStream& random, int difficulty);
SyntheticRow units(PhiloxStream& random, int difficulty);
SyntheticRow stories(PhiloxStream& random, int difficulty);
SyntheticRow letters(PhiloxStream& random, int difficulty);
SyntheticRow sort_letters(PhiloxStream& random, int difficulty);
SyntheticRow reverse_letters(PhiloxStream& random, int difficulty);
SyntheticRow shift_letters(PhiloxStream& random, int difficulty);

// days since 1 January 1970, proleptic Gregorian
int64_t day_number(int64_t year, int64_t month, int64_t day);
int64_t days_in_month(int64_t year, int64_t month);
std::string_view weekday_name(int64_t day_number);  // "Monday" ...
std::string_view month_name(int64_t month);         // 1..12

// lines of single facts about letters, for the corpus
std::string letter_sheet(PhiloxStream& random);

// a story of a few sentences, and one question about it with its answer
struct Story {
  std::string text, question, answer;
};
Story make_story(PhiloxStream& random);

}  // namespace pmetal::data::synthetic
