// From a row of any accepted layout to one of five things a trainer knows: text, a chat, a prompt with its completion,
// a preference (prompt, chosen, rejected), ready tokens. Formats are told by their columns (surface 10.1), first match
// wins:
//   text | content               text
//   instruction [input] output   alpaca: the Instruction / Input / Response headings, loss on the response
//   conversations                sharegpt {from, value}: human, gpt, system, tool names -> a chat
//   messages                     a chat, with `tools` beside it
//   problem | thinking           reasoning: user = problem, assistant = <think>...</think> solution
//   [prompt] chosen rejected     preference, strings or message lists
//   prompt completion|response   strings: plain continuation; message lists: a chat, loss on the completion
//   question answer, prompt answer, input output     a chat of two turns (plain text for a model without a template)
//   input_ids [labels]           ready tokens
// Lists of turns and `tools` may also be their JSON text. Column flags come first. What does not fit is
// Error(kInvalidInput) naming file, line and field, or listing the columns.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/source.h"

namespace pmetal::data {

enum class RecordFormat : uint8_t {
  kText,
  kAlpaca,
  kShareGpt,
  kMessages,
  kReasoning,
  kPreference,
  kPromptCompletion,
  kQuestionAnswer,
  kInputOutput,
  kTokens,
};
std::string_view name_of(RecordFormat format);  // "text", "alpaca", ...

// The shared column flags of the surface; empty = not given.
struct ColumnFlags {
  std::string text_column;                // --text-column
  std::vector<std::string> text_columns;  // --text-columns a,b: joined by the separator
  std::string column_separator = "\n\n";  // --column-separator
  std::string prompt_column, response_column;
};

struct Record {
  RecordFormat format = RecordFormat::kText;
  std::string text;                // kText
  std::string messages;            // JSON array text of {role, content, ...}; empty when this is not a chat
  std::string tools;               // JSON array text of tool definitions; may be empty
  int64_t prompt_messages = 0;     // chats whose loss is on the tail alone: how many messages belong to the prompt
  std::string prompt, completion;  // plain pairs: loss on the completion
  std::string chosen, rejected;  // kPreference: text behind `prompt`, or JSON arrays of the messages behind `messages`
  std::vector<int32_t> input_ids, labels;  // kTokens; labels empty = all tokens are learned
  std::string answer;                      // the field `answer` when there is one: what exact match compares with
  std::string where;                       // file:line
  bool is_chat() const { return !messages.empty(); }
};

// The format that a row's columns say; nothing when none fits.
std::optional<RecordFormat> detect_format(const std::vector<std::string>& columns);
// the accepted formats for `dataset formats`: name, columns, what is learned
struct FormatInfo {
  std::string_view name, columns, meaning;
};
const std::vector<FormatInfo>& format_table();

// Parses rows; keeps its buffers between calls. One per thread.
class RecordParser {
 public:
  explicit RecordParser(ColumnFlags flags = {});
  ~RecordParser();
  RecordParser(const RecordParser&) = delete;
  RecordParser& operator=(const RecordParser&) = delete;
  Record parse(const Row& row);
  std::vector<std::string> columns(const Row& row);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pmetal::data
