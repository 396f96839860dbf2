// Everything about letters. What pretraining sees are single facts: which letter stands where, which follows which,
// the same letters again. Three tasks that are made of these parts never occur there: a list put in order, written
// backwards, or shifted along the alphabet. They are what the quickstart fine-tunes on.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "data/synthetic_parts.h"

namespace pmetal::data::synthetic {
namespace {

constexpr std::array<std::string_view, 20> kWords = {"cat",  "dog",   "sun",  "tree",  "bird", "fish", "house",
                                                     "lamp", "milk",  "star", "ship",  "rain", "snow", "apple",
                                                     "road", "bread", "king", "queen", "hand", "light"};
constexpr std::array<std::string_view, 4> kPlaces = {"first", "second", "third", "fourth"};

// n different letters in random order
std::string draw_letters(PhiloxStream& random, int n) {
  std::string letters = "abcdefghijklmnopqrstuvwxyz";
  n = std::clamp(n, 2, 26);
  for (int i = 0; i < n; ++i)
    std::swap(letters[static_cast<size_t>(i)], letters[static_cast<size_t>(between(random, i, 25))]);
  return letters.substr(0, static_cast<size_t>(n));
}

std::string spaced(std::string_view letters) {
  std::string out;
  for (size_t i = 0; i < letters.size(); ++i) {
    if (i) out += ' ';
    out += letters[i];
  }
  return out;
}

}  // namespace

// Never a whole list of letters put in order, backwards, or shifted.
std::string letter_sheet(PhiloxStream& random) {
  std::string out;
  const int64_t lines = between(random, 5, 12);
  for (int64_t i = 0; i < lines; ++i) {
    const auto c = static_cast<char>('a' + between(random, 0, 24));
    const auto next = static_cast<char>(c + 1);
    switch (random.below(5)) {
      case 0: out += fmt::format("The letter after {} is {}.\n", c, next); break;
      case 1: out += fmt::format("The letter before {} is {}.\n", next, c); break;
      case 2: {
        const auto d = static_cast<char>('a' + between(random, 0, 25));
        if (c == d) break;
        out += fmt::format("Which comes first, {} or {}? {}\n", c, d, std::min(c, d));
        break;
      }
      case 3: {
        const std::string_view word = pick(random, kWords);
        out += fmt::format("Spell {}: {}\n", word, spaced(word));
        break;
      }
      default: {
        const std::string list = draw_letters(random, 4);
        const size_t at = random.below(list.size());
        out += fmt::format("In {} the {} letter is {}.\n", spaced(list), kPlaces[at], list[at]);
      }
    }
  }
  return out;
}

// difficulty = about how many letters
SyntheticRow letters(PhiloxStream& random, int difficulty) {
  const int n = std::clamp(difficulty, 3, 25) + static_cast<int>(between(random, -1, 1));
  const std::string list = draw_letters(random, n), shown = spaced(list);
  const size_t at = random.below(list.size() - 1);  // one that has a next
  const auto row = [](std::string question, std::string_view answer) {
    return SyntheticRow{std::move(question), spaced(answer), "letters"};
  };
  switch (random.below(8)) {
    case 0: {
      // longer lists: each further letter is one more lesson in finding the place and going on from there
      const std::string longer = draw_letters(random, static_cast<int>(between(random, n, 2 * n + 2)));
      return row(fmt::format("Write these letters again: {}", spaced(longer)), longer);
    }
    case 1: return row(fmt::format("Leave out the first letter: {}", shown), std::string_view(list).substr(1));
    case 2:
      if (at < kPlaces.size())
        return row(fmt::format("Which letter is {}: {}", kPlaces[at], shown), list.substr(at, 1));
      [[fallthrough]];
    case 3: return row(fmt::format("Which letter is last: {}", shown), list.substr(list.size() - 1));
    case 4: return row(fmt::format("Which letter stands after {}: {}", list[at], shown), list.substr(at + 1, 1));
    case 5: return row(fmt::format("Which letter stands before {}: {}", list[at + 1], shown), list.substr(at, 1));
    case 6: {
      const auto c = static_cast<char>('a' + between(random, 0, 24)), next = static_cast<char>(c + 1);
      return random.below(2) == 0 ? row(fmt::format("Which letter of the alphabet is after {}?", c), {&next, 1})
                                  : row(fmt::format("Which letter of the alphabet is before {}?", next), {&c, 1});
    }
    default:
      return row(fmt::format("Which letter is first in the alphabet: {}", shown),
                 std::string(1, *std::min_element(list.begin(), list.end())));
  }
}

SyntheticRow sort_letters(PhiloxStream& random, int difficulty) {
  std::string letters = draw_letters(random, difficulty);
  std::string question = "Put these letters in order: " + spaced(letters);
  std::sort(letters.begin(), letters.end());
  return {std::move(question), spaced(letters), "sort-letters"};
}

SyntheticRow reverse_letters(PhiloxStream& random, int difficulty) {
  std::string letters = draw_letters(random, difficulty);
  std::string question = "Write these letters backwards: " + spaced(letters);
  std::reverse(letters.begin(), letters.end());
  return {std::move(question), spaced(letters), "reverse-letters"};
}

SyntheticRow shift_letters(PhiloxStream& random, int difficulty) {
  std::string letters = draw_letters(random, difficulty);
  std::string question = "Write the next letter of each: " + spaced(letters);
  for (char& c : letters) c = c == 'z' ? 'a' : static_cast<char>(c + 1);
  return {std::move(question), spaced(letters), "shift-letters"};
}

}  // namespace pmetal::data::synthetic
