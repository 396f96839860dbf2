// The generator: deterministic, prefix-stable, answers right, sides disjoint, targets kept out of the corpus.
#include "data/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/error.h"
#include "data/record.h"
#include "data/synthetic_parts.h"

namespace pmetal::data {
namespace {

TEST(Synthetic, The_corpus_is_deterministic_and_longer_ones_begin_with_shorter_ones) {
  const auto a = corpus(1, 20000), b = corpus(1, 60000);
  EXPECT_GE(a.size(), 20000u);
  EXPECT_EQ(b.substr(0, a.size()), a);
  EXPECT_NE(corpus(2, 20000).substr(0, 1000), a.substr(0, 1000));
  EXPECT_TRUE(a.ends_with("<|endoftext|>\n"));
}

TEST(Synthetic, Questions_of_the_two_sides_never_overlap_and_rows_are_distinct) {
  for (const auto& task : synthetic_tasks()) {
    std::set<std::string> train, test;
    for (uint64_t seed : {1, 2})
      for (const auto& row : instruction_set(task.name, 300, seed, Split::kTrain)) train.insert(row.question);
    const auto rows = instruction_set(task.name, 60, 3, Split::kTest);
    for (const auto& row : rows) {
      EXPECT_EQ(row.task, task.name);
      EXPECT_FALSE(row.answer.empty());
      test.insert(row.question);
    }
    EXPECT_EQ(test.size(), rows.size()) << task.name;
    for (const auto& q : test) EXPECT_EQ(train.count(q), 0u) << q;
  }
}

TEST(Synthetic, Longer_sets_begin_with_shorter_ones) {
  const auto a = instruction_set("sort-letters", 50, 7, Split::kTrain),
             b = instruction_set("sort-letters", 80, 7, Split::kTrain);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].question, b[i].question);
}

TEST(Synthetic, Letter_answers_are_right) {
  const auto letters = [](const std::string& row) {
    std::string out;
    for (char c : row.substr(row.find(':') == std::string::npos ? 0 : row.find(':') + 1))
      if (c != ' ') out += c;
    return out;
  };
  for (const auto& row : instruction_set("sort-letters", 100, 1, Split::kTest)) {
    const auto q = letters(row.question), a = letters(row.answer);
    EXPECT_EQ(a.size(), 4u);
    EXPECT_TRUE(std::is_sorted(a.begin(), a.end()));
    EXPECT_TRUE(std::is_permutation(q.begin(), q.end(), a.begin(), a.end()));
  }
  for (const auto& row : instruction_set("reverse-letters", 100, 1, Split::kTrain, 6)) {
    const auto q = letters(row.question);
    EXPECT_EQ(letters(row.answer), std::string(q.rbegin(), q.rend()));
    EXPECT_EQ(q.size(), 6u);
  }
  EXPECT_EQ(letters(instruction_set("shift-letters", 1, 1, Split::kTrain, 2)[0].answer).size(), 2u);
}

TEST(Synthetic, Single_facts_about_letters_are_right_and_never_a_target_as_a_whole) {
  std::set<std::string> kinds;
  for (const auto& row : instruction_set("letters", 600, 2, Split::kTrain)) {
    const auto colon = row.question.find(':');
    std::string list, answer;
    for (char c : colon == std::string::npos ? "" : row.question.substr(colon + 1))
      if (c != ' ') list += c;
    for (char c : row.answer)
      if (c != ' ') answer += c;
    const std::string kind = row.question.substr(0, row.question.find_first_of(":?"));
    const auto at = list.find(answer);
    if (kind == "Write these letters again")
      EXPECT_EQ(answer, list);
    else if (kind == "Leave out the first letter")
      EXPECT_EQ(answer, list.substr(1));
    else if (kind == "Which letter is first")
      EXPECT_EQ(at, 0u);
    else if (kind == "Which letter is second")
      EXPECT_EQ(at, 1u);
    else if (kind == "Which letter is third")
      EXPECT_EQ(at, 2u);
    else if (kind == "Which letter is fourth")
      EXPECT_EQ(at, 3u);
    else if (kind == "Which letter is last")
      EXPECT_EQ(at + 1, list.size());
    else if (kind == "Which letter is first in the alphabet")
      EXPECT_EQ(answer[0], *std::min_element(list.begin(), list.end()));
    else if (kind.starts_with("Which letter stands after"))
      EXPECT_EQ(list[at - 1], kind.back()) << row.question;
    else if (kind.starts_with("Which letter stands before"))
      EXPECT_EQ(list[at + 1], kind.back()) << row.question;
    else if (kind.starts_with("Which letter of the alphabet is after"))
      EXPECT_EQ(answer[0], kind.back() + 1);
    else if (kind.starts_with("Which letter of the alphabet is before"))
      EXPECT_EQ(answer[0], kind.back() - 1);
    else
      ADD_FAILURE() << row.question;
    kinds.insert(kind.substr(0, 24));
    EXPECT_TRUE(answer.size() == 1 || answer == list || answer == list.substr(1)) << row.question;
  }
  EXPECT_GE(kinds.size(), 9u);
}

TEST(Synthetic, Arithmetic_answers_are_right) {
  for (const auto& row : instruction_set("arithmetic", 300, 5, Split::kTrain)) {
    std::istringstream in(row.question);
    std::string what, is;
    int64_t a, b;
    char op;
    if (!(in >> what >> is >> a >> op >> b) || what != "What") continue;
    EXPECT_EQ(row.answer, std::to_string(op == '+' ? a + b : op == '-' ? a - b : a * b)) << row.question;
  }
}

TEST(Synthetic, The_calendar_is_right) {
  using namespace synthetic;
  EXPECT_EQ(day_number(1970, 1, 1), 0);
  EXPECT_EQ(weekday_name(day_number(2000, 1, 1)), "Saturday");
  EXPECT_EQ(weekday_name(day_number(1969, 7, 20)), "Sunday");
  EXPECT_EQ(days_in_month(2024, 2), 29);
  EXPECT_EQ(days_in_month(1900, 2), 28);
  EXPECT_EQ(days_in_month(2023, 12), 31);
}

TEST(Synthetic, Kept_out_tasks_do_not_occur_in_the_corpus) {
  const auto text = corpus(11, 400000);
  for (const char* phrase : {"letters in order", "letters backwards", "next letter of each"})
    EXPECT_EQ(text.find(phrase), std::string::npos) << phrase;
  EXPECT_NE(text.find("The letter after"), std::string::npos);
  EXPECT_NE(text.find("Sort these numbers"), std::string::npos);
}

TEST(Synthetic, Rows_are_chats_that_the_record_parser_reads) {
  const auto rows = instruction_set("stories", 20, 1, Split::kTrain);
  std::istringstream in(to_jsonl(rows));
  RecordParser parser;
  std::string line;
  size_t i = 0;
  while (std::getline(in, line)) {
    const auto record = parser.parse({line, nullptr, 1});
    EXPECT_EQ(record.format, RecordFormat::kMessages);
    EXPECT_EQ(record.answer, rows[i++].answer);
  }
  EXPECT_EQ(i, rows.size());
}

TEST(Synthetic, Unknown_tasks_and_exhausted_tests_say_so) {
  EXPECT_THROW(instruction_set("juggling", 1, 1, Split::kTrain), Error);
  EXPECT_THROW(instruction_set("shift-letters", 1000, 1, Split::kTest, 2), Error);
  EXPECT_EQ(instruction_set("shift-letters", 1000, 1, Split::kTrain, 2).size(), 1000u);
}

}  // namespace
}  // namespace pmetal::data
