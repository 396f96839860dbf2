// The checkable tasks: each draws one question and computes its answer.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include "base/error.h"
#include "data/synthetic_parts.h"

namespace pmetal::data::synthetic {
namespace {

constexpr std::array<std::string_view, 8> kNames = {"Anna", "Ben", "Clara", "David", "Emma", "Leo", "Mia", "Tom"};
constexpr std::array<std::string_view, 8> kThings = {"apples", "books", "coins",  "eggs",
                                                     "nails",  "pens",  "shells", "stones"};

std::string join(const std::vector<std::string>& parts, std::string_view separator = " ") {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i) out += separator;
    out += parts[i];
  }
  return out;
}

}  // namespace

// difficulty = digits of the operands
SyntheticRow arithmetic(PhiloxStream& random, int difficulty) {
  int64_t limit = 1;
  for (int d = 0; d < std::clamp(difficulty, 1, 9); ++d) limit *= 10;
  int64_t a = between(random, 1, limit - 1), b = between(random, 1, limit - 1);
  switch (random.below(5)) {
    case 0: return {fmt::format("What is {} + {}?", a, b), std::to_string(a + b), "arithmetic"};
    case 1:
      if (a < b) std::swap(a, b);
      return {fmt::format("What is {} - {}?", a, b), std::to_string(a - b), "arithmetic"};
    case 2:
      a = between(random, 1, 12);
      b = between(random, 1, 12);
      return {fmt::format("What is {} * {}?", a, b), std::to_string(a * b), "arithmetic"};
    case 3:
      return {fmt::format("{} has {} {} and finds {} more. How many are there now?", pick(random, kNames), a,
                          pick(random, kThings), b),
              std::to_string(a + b), "arithmetic"};
    default:
      if (a < b) std::swap(a, b);
      return {fmt::format("{} has {} {} and gives away {}. How many are left?", pick(random, kNames), a,
                          pick(random, kThings), b),
              std::to_string(a - b), "arithmetic"};
  }
}

// difficulty = how many numbers
SyntheticRow sorting(PhiloxStream& random, int difficulty) {
  std::vector<int64_t> numbers;
  const int n = std::clamp(difficulty, 2, 16);
  while (static_cast<int>(numbers.size()) < n) {
    const int64_t x = between(random, 0, 99);
    if (std::find(numbers.begin(), numbers.end(), x) == numbers.end()) numbers.push_back(x);
  }
  const auto text = [](const std::vector<int64_t>& v) {
    std::vector<std::string> parts;
    for (int64_t x : v) parts.push_back(std::to_string(x));
    return join(parts);
  };
  const std::string asked = text(numbers);
  const bool is_descending = random.below(4) == 0;
  std::sort(numbers.begin(), numbers.end());
  if (is_descending) std::reverse(numbers.begin(), numbers.end());
  return {fmt::format("Sort these numbers from {}: {}", is_descending ? "large to small" : "small to large", asked),
          text(numbers), "sorting"};
}

int64_t day_number(int64_t year, int64_t month, int64_t day) {
  using namespace std::chrono;
  return sys_days{std::chrono::year{static_cast<int>(year)} / std::chrono::month{static_cast<unsigned>(month)} /
                  std::chrono::day{static_cast<unsigned>(day)}}
      .time_since_epoch()
      .count();
}
int64_t days_in_month(int64_t year, int64_t month) {
  return month == 12 ? 31 : day_number(year, month + 1, 1) - day_number(year, month, 1);
}
std::string_view weekday_name(int64_t number) {
  static constexpr std::array<std::string_view, 7> kDays = {"Thursday", "Friday",  "Saturday", "Sunday",
                                                            "Monday",   "Tuesday", "Wednesday"};
  return kDays[static_cast<size_t>(((number % 7) + 7) % 7)];
}
std::string_view month_name(int64_t month) {
  static constexpr std::array<std::string_view, 12> kMonths = {"January",   "February", "March",    "April",
                                                               "May",       "June",     "July",     "August",
                                                               "September", "October",  "November", "December"};
  return kMonths[static_cast<size_t>(month - 1)];
}

// difficulty 1: days after a weekday, days in a month; 2: days between two dates of one month; 3: weekday of a date
SyntheticRow dates(PhiloxStream& random, int difficulty) {
  const int64_t year = between(random, 1990, 2029), month = between(random, 1, 12);
  const int64_t length = days_in_month(year, month);
  switch (random.below(static_cast<uint64_t>(std::clamp(difficulty, 1, 3)) + 1)) {
    case 0: {
      const int64_t start = between(random, 0, 6), ahead = between(random, 1, 13);
      return {
          fmt::format("Today is {}. What day is it in {} {}?", weekday_name(start), ahead, ahead == 1 ? "day" : "days"),
          std::string(weekday_name(start + ahead)), "dates"};
    }
    case 1: return {fmt::format("How many days has {} {}?", month_name(month), year), std::to_string(length), "dates"};
    case 2: {
      int64_t a = between(random, 1, length), b = between(random, 1, length);
      if (a > b) std::swap(a, b);
      return {fmt::format("How many days are there from {} {} to {} {}?", a, month_name(month), b, month_name(month)),
              std::to_string(b - a), "dates"};
    }
    default: {
      const int64_t day = between(random, 1, length);
      return {fmt::format("Which day of the week is {} {} {}?", day, month_name(month), year),
              std::string(weekday_name(day_number(year, month, day))), "dates"};
    }
  }
}

// difficulty = digits of the amount
SyntheticRow units(PhiloxStream& random, int difficulty) {
  struct Unit {
    std::string_view large, small;
    int64_t factor;
  };
  static constexpr std::array<Unit, 10> kUnits = {{{"metres", "centimetres", 100},
                                                   {"kilometres", "metres", 1000},
                                                   {"kilograms", "grams", 1000},
                                                   {"litres", "millilitres", 1000},
                                                   {"hours", "minutes", 60},
                                                   {"minutes", "seconds", 60},
                                                   {"days", "hours", 24},
                                                   {"weeks", "days", 7},
                                                   {"years", "months", 12},
                                                   {"dozens", "pieces", 12}}};
  const Unit& unit = kUnits[random.below(kUnits.size())];
  int64_t limit = 1;
  for (int d = 0; d < std::clamp(difficulty, 1, 6); ++d) limit *= 10;
  const int64_t amount = between(random, 2, limit - 1);
  if (random.below(2) == 0)
    return {fmt::format("How many {} are {} {}?", unit.small, amount, unit.large), std::to_string(amount * unit.factor),
            "units"};
  return {fmt::format("How many {} are {} {}?", unit.large, amount * unit.factor, unit.small), std::to_string(amount),
          "units"};
}

SyntheticRow stories(PhiloxStream& random, int) {
  Story story = make_story(random);
  return {story.text + " " + story.question, story.answer, "stories"};
}

}  // namespace pmetal::data::synthetic
