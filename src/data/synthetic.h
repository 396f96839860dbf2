// Data of our own making, for the quickstart and for tests: deterministic (Philox, one stream per document or row, so a
// longer set begins with the shorter one), English of a small vocabulary, every answer checkable by exact match.
//
// The corpus teaches reading, counting, order and the alphabet: short stories, sums, sorted numbers, dates, units, and
// single facts about letters ("The letter after c is d." "Spell cat: c a t."). Three tasks never occur in it in any
// form and serve as fine-tuning targets, their parts being known and their whole not:
//   sort-letters     "Put these letters in order: m c x f"        -> "c f m x"
//   reverse-letters  "Write these letters backwards: m c x f"     -> "f x c m"
//   shift-letters    "Write the next letter of each: m c x f"     -> "n d y g"
// `difficulty` is the number of letters (default 4; chance of a blind guess of the arrangement is 1 in 24).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::data {

struct SyntheticRow {
  std::string question, answer, task;
};

enum class Split : uint8_t { kTrain, kTest };

struct SyntheticTask {
  std::string_view name, meaning;
  int default_difficulty;  // number of operands, items or letters; larger is harder
  bool is_in_corpus;       // false: kept out, a target for fine-tuning
};
const std::vector<SyntheticTask>& synthetic_tasks();

// Pretraining text of at least `size_bytes` (it ends with a whole document); documents end with the line <|endoftext|>.
std::string corpus(uint64_t seed, int64_t size_bytes);

// n questions of one task with their answers. A question belongs to the train or the test side by a hash of its own
// text (one in eight is test), so no question is ever on both sides, whatever seeds and sizes. Questions are distinct
// until the task has no new ones to give: then train repeats, test is Error(kUsage). `difficulty` 0 = the default.
std::vector<SyntheticRow> instruction_set(std::string_view task, int64_t n, uint64_t seed, Split split,
                                          int difficulty = 0);

// {"messages": [user, assistant], "answer": ..., "task": ...} per line
std::string to_jsonl(const std::vector<SyntheticRow>& rows);

}  // namespace pmetal::data
