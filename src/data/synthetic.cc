#include "data/synthetic.h"

#include <fmt/format.h>

#include <array>
#include <unordered_set>

#include "base/error.h"
#include "data/source.h"
#include "data/synthetic_parts.h"
#include "formats/text.h"

namespace pmetal::data {
namespace {

using synthetic::between;
using synthetic::pick;

using MakeRow = SyntheticRow (*)(PhiloxStream&, int);
constexpr std::array<MakeRow, 9> kMakers = {
    &synthetic::arithmetic,   &synthetic::sorting,         &synthetic::dates,
    &synthetic::units,        &synthetic::stories,         &synthetic::letters,
    &synthetic::sort_letters, &synthetic::reverse_letters, &synthetic::shift_letters};

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash ^ hash >> 32;
}
Split split_of(std::string_view question) { return fnv1a(question) % 8 == 0 ? Split::kTest : Split::kTrain; }

// Streams: [task 8 bits][row] for instruction sets, bit 63 set for corpus documents.
constexpr uint64_t kCorpusStreams = uint64_t{1} << 63;

// A sheet of questions and answers on one subject; questions of the test side never appear, so evaluation stays unseen.
std::string fact_sheet(PhiloxStream& random, MakeRow make, int max_difficulty) {
  std::string out;
  const int64_t lines = between(random, 4, 10);
  for (int64_t made = 0; made < lines;) {
    const auto row = make(random, static_cast<int>(between(random, 1, max_difficulty)));
    if (split_of(row.question) == Split::kTest) continue;
    out += "Q: " + row.question + "\nA: " + row.answer + "\n";
    ++made;
  }
  return out;
}

std::string sum_sheet(PhiloxStream& random) {
  std::string out;
  const int64_t lines = between(random, 6, 14), limit = random.below(3) == 0 ? 9 : 99;
  for (int64_t i = 0; i < lines; ++i) {
    int64_t a = between(random, 0, limit), b = between(random, 0, limit);
    switch (random.below(3)) {
      case 0: out += fmt::format("{} + {} = {}\n", a, b, a + b); break;
      case 1:
        out += fmt::format("{} - {} = {}\n", std::max(a, b), std::min(a, b), std::max(a, b) - std::min(a, b));
        break;
      default:
        a = between(random, 1, 12);
        b = between(random, 1, 12);
        out += fmt::format("{} * {} = {}\n", a, b, a * b);
    }
  }
  return out;
}

std::string document(uint64_t seed, uint64_t index) {
  PhiloxStream random(seed, RngPurpose::kSynthetic, kCorpusStreams | index);
  const int64_t kind = between(random, 0, 99);
  if (kind < 30) {
    const auto story = synthetic::make_story(random);
    return story.text + "\n" + (random.below(2) == 0 ? "Q: " + story.question + "\nA: " + story.answer + "\n" : "");
  }
  if (kind < 42) return sum_sheet(random);
  if (kind < 54) return fact_sheet(random, &synthetic::arithmetic, 2);
  if (kind < 66) return fact_sheet(random, &synthetic::sorting, 5);
  if (kind < 76) return fact_sheet(random, &synthetic::dates, 3);
  if (kind < 84) return fact_sheet(random, &synthetic::units, 2);
  return synthetic::letter_sheet(random);
}

}  // namespace

const std::vector<SyntheticTask>& synthetic_tasks() {
  static const std::vector<SyntheticTask> kTasks = {
      {"arithmetic", "sums, differences, products, small word problems; difficulty = digits", 2, true},
      {"sorting", "numbers in order; difficulty = how many", 4, true},
      {"dates", "weekdays and days between dates; difficulty 1 to 3", 2, true},
      {"units", "conversions that come out whole; difficulty = digits", 2, true},
      {"stories", "a short story and a question about it", 1, true},
      {"letters", "one thing about a few letters: the third, the one after c, all of them again; difficulty = how many",
       4, true},
      {"sort-letters", "letters into alphabetical order; difficulty = how many", 4, false},
      {"reverse-letters", "letters backwards; difficulty = how many", 4, false},
      {"shift-letters", "the next letter of each; difficulty = how many", 4, false},
  };
  return kTasks;
}

std::string corpus(uint64_t seed, int64_t size_bytes) {
  std::string out;
  out.reserve(static_cast<size_t>(size_bytes) + 4096);
  for (uint64_t i = 0; static_cast<int64_t>(out.size()) < size_bytes; ++i) {
    out += document(seed, i);
    out += kDocumentSeparator;
    out += '\n';
  }
  return out;
}

std::vector<SyntheticRow> instruction_set(std::string_view task, int64_t n, uint64_t seed, Split split,
                                          int difficulty) {
  const auto& tasks = synthetic_tasks();
  size_t t = 0;
  std::string names;
  for (; t < tasks.size() && tasks[t].name != task; ++t) names += (t ? ", " : "") + std::string(tasks[t].name);
  if (t == tasks.size()) fail(ErrorCode::kUsage, "there is no task \"{}\"; the tasks are {}", task, names);
  if (difficulty == 0) difficulty = tasks[t].default_difficulty;
  // so many draws in a row without a new question mean that there are none left to speak of
  constexpr int kMaxFruitless = 2000;
  std::vector<SyntheticRow> rows;
  std::unordered_set<std::string> seen;
  int fruitless = 0;
  bool may_repeat = false;
  for (uint64_t draw = 0; static_cast<int64_t>(rows.size()) < n; ++draw) {
    PhiloxStream random(seed, RngPurpose::kSynthetic, static_cast<uint64_t>(t) << 48 | draw);
    SyntheticRow row = kMakers[t](random, difficulty);
    const bool is_wanted = split_of(row.question) == split && (may_repeat || seen.insert(row.question).second);
    if (is_wanted) {
      rows.push_back(std::move(row));
      fruitless = 0;
    } else if (++fruitless == kMaxFruitless && !may_repeat) {
      if (split == Split::kTest || rows.empty())
        fail(ErrorCode::kUsage,
             "the task {} at difficulty {} has only about {} questions on this side, {} were asked for", task,
             difficulty, rows.size(), n);
      may_repeat = true;
    }
  }
  return rows;
}

std::string to_jsonl(const std::vector<SyntheticRow>& rows) {
  std::string out;
  for (const auto& row : rows) {
    out += R"({"messages": [{"role": "user", "content": )";
    formats::append_json_string(out, row.question, "question");
    out += R"(}, {"role": "assistant", "content": )";
    formats::append_json_string(out, row.answer, "answer");
    out += R"(}], "answer": )";
    formats::append_json_string(out, row.answer, "answer");
    out += R"(, "task": )";
    formats::append_json_string(out, row.task, "task");
    out += "}\n";
  }
  return out;
}

}  // namespace pmetal::data
