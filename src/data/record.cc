#include "data/record.h"

#include <simdjson.h>

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"
#include "formats/text.h"

namespace pmetal::data {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::element_type;
using simdjson::dom::object;

std::string_view type_name(element value) {
  switch (value.type()) {
    case element_type::ARRAY: return "a list";
    case element_type::OBJECT: return "an object";
    case element_type::STRING: return "text";
    case element_type::BOOL: return "true or false";
    case element_type::NULL_VALUE: return "null";
    default: return "a number";
  }
}

// The fields of one row with errors that name the place.
class Fields {
 public:
  Fields(object fields, std::string where) : fields_(fields), where_(std::move(where)) {}

  bool has(std::string_view name) const {
    const auto value = find(name);
    return value && !value->is_null();
  }
  element get(std::string_view name) const {
    if (const auto value = find(name)) return *value;
    fail(ErrorCode::kInvalidInput, "{}: no field \"{}\"; the columns are {}", where_, name, list());
  }
  // text of a field; numbers and booleans are written as JSON writes them
  std::string text(std::string_view name) const {
    const element value = get(name);
    switch (value.type()) {
      case element_type::STRING: return std::string(std::string_view(value));
      case element_type::INT64:
      case element_type::UINT64:
      case element_type::DOUBLE:
      case element_type::BOOL: return simdjson::to_string(value);
      default: wrong(name, "text", value);
    }
  }
  std::string text_or_empty(std::string_view name) const { return has(name) ? text(name) : std::string(); }
  array list_of(std::string_view name) const {
    const element value = get(name);
    if (!value.is_array()) wrong(name, "a list", value);
    return value.get_array();
  }
  // the same where a list is meant and its JSON text is taken as well, as CSV files and some Parquet files hold it
  array list_or_text_of(std::string_view name, simdjson::dom::parser& parser) const {
    const element value = get(name);
    if (!value.is_string()) return list_of(name);
    element inner;
    if (parser.parse(std::string(std::string_view(value))).get(inner) != simdjson::SUCCESS || !inner.is_array())
      fail(ErrorCode::kInvalidInput, "{}: field \"{}\" must be a list, it is text that is not a JSON list", where_,
           name);
    return inner.get_array();
  }
  bool is_list(std::string_view name) const { return has(name) && get(name).is_array(); }
  [[noreturn]] void wrong(std::string_view name, std::string_view expected, element value) const {
    fail(ErrorCode::kInvalidInput, "{}: field \"{}\" must be {}, it is {}", where_, name, expected, type_name(value));
  }
  std::vector<std::string> columns() const {
    std::vector<std::string> names;
    for (auto field : fields_) names.emplace_back(field.key);
    return names;
  }
  std::string list() const {
    std::string out;
    for (auto field : fields_) out += (out.empty() ? "" : ", ") + std::string(field.key);
    return out.empty() ? "(none)" : out;
  }
  const std::string& where() const { return where_; }

 private:
  // of a name that occurs twice the last value counts, as in Python
  std::optional<element> find(std::string_view name) const {
    std::optional<element> found;
    for (auto field : fields_)
      if (field.key == name) found = field.value;
    return found;
  }
  object fields_;
  std::string where_;
};

std::string message_json(std::string_view role, std::string_view content) {
  std::string out = "{\"role\":";
  formats::append_json_string(out, role, "role");
  out += ",\"content\":";
  formats::append_json_string(out, content, "content");
  return out + '}';
}

// Checks a list of messages and appends them, comma-separated, to `out`; returns how many there were.
int64_t append_messages(const Fields& row, std::string_view field, array messages, std::string& out) {
  int64_t n = 0;
  for (element item : messages) {
    const auto name = [&](std::string_view part) { return fmt::format("{}[{}]{}", field, n, part); };
    if (!item.is_object()) row.wrong(name(""), "an object {role, content}", item);
    element role, content;
    if (item.at_key("role").get(role) != simdjson::SUCCESS)
      fail(ErrorCode::kInvalidInput, "{}: field \"{}\" is missing", row.where(), name(".role"));
    if (!role.is_string()) row.wrong(name(".role"), "text", role);
    const bool has_content = item.at_key("content").get(content) == simdjson::SUCCESS && !content.is_null();
    if (has_content && !content.is_string() && !content.is_array())
      row.wrong(name(".content"), "text or a list of parts", content);
    element calls;
    if (!has_content && item.at_key("tool_calls").get(calls) != simdjson::SUCCESS &&
        item.at_key("content").get(content) != simdjson::SUCCESS)
      fail(ErrorCode::kInvalidInput, "{}: field \"{}\" is missing (and there are no tool_calls)", row.where(),
           name(".content"));
    if (!out.empty()) out += ',';
    out += simdjson::to_string(item);
    ++n;
  }
  if (n == 0) fail(ErrorCode::kInvalidInput, "{}: field \"{}\" is an empty list", row.where(), field);
  return n;
}
int64_t append_messages(const Fields& row, std::string_view field, std::string& out) {
  return append_messages(row, field, row.list_of(field), out);
}

std::string_view role_of(std::string_view from) {
  if (from == "human" || from == "user") return "user";
  if (from == "gpt" || from == "assistant" || from == "model" || from == "bot" || from == "chatgpt") return "assistant";
  if (from == "system") return "system";
  if (from == "tool" || from == "observation" || from == "function_response") return "tool";
  return {};
}

void read_sharegpt(const Fields& row, simdjson::dom::parser& parser, Record& record) {
  int64_t n = 0;
  std::string out;
  if (row.has("system") && !row.text("system").empty()) out = message_json("system", row.text("system"));
  for (element item : row.list_or_text_of("conversations", parser)) {
    const auto name = [&](std::string_view part) { return fmt::format("conversations[{}]{}", n, part); };
    if (!item.is_object()) row.wrong(name(""), "an object {from, value}", item);
    element from, value;
    // some sets use the column name of ShareGPT with the fields of OpenAI
    const bool openai = item.at_key("role").get(from) == simdjson::SUCCESS;
    if (!openai && item.at_key("from").get(from) != simdjson::SUCCESS)
      fail(ErrorCode::kInvalidInput, "{}: field \"{}\" is missing", row.where(), name(".from"));
    const char* key = openai ? "content" : "value";
    if (item.at_key(key).get(value) != simdjson::SUCCESS)
      fail(ErrorCode::kInvalidInput, "{}: field \"{}.{}\" is missing", row.where(), name(""), key);
    if (!from.is_string()) row.wrong(name(openai ? ".role" : ".from"), "text", from);
    if (!value.is_string()) row.wrong(name("." + std::string(key)), "text", value);
    const std::string_view role = role_of(std::string_view(from));
    if (role.empty())
      fail(ErrorCode::kInvalidInput, "{}: field \"{}\" is \"{}\"; known speakers are human, gpt, system, tool",
           row.where(), name(".from"), std::string_view(from));
    if (!out.empty()) out += ',';
    out += message_json(role, std::string_view(value));
    ++n;
  }
  if (n == 0) fail(ErrorCode::kInvalidInput, "{}: field \"conversations\" is an empty list", row.where());
  record.messages = "[" + out + "]";
}

void read_tools(const Fields& row, simdjson::dom::parser& parser, Record& record) {
  if (!row.has("tools")) return;
  const element value = row.get("tools");
  if (value.is_string() && std::string_view(value).empty()) return;
  if (!value.is_array() && !value.is_string())
    row.wrong("tools", "a list of tool definitions, or its JSON text", value);
  const array tools = row.list_or_text_of("tools", parser);
  if (tools.size() > 0) record.tools = simdjson::to_string(tools);
}

void chat_of_two(Record& record, std::string prompt, std::string answer) {
  record.messages = "[" + message_json("user", prompt) + "," + message_json("assistant", answer) + "]";
  record.prompt_messages = 1;
  record.prompt = std::move(prompt);
  record.completion = std::move(answer);
}

void read_alpaca(const Fields& row, Record& record) {
  const std::string input = row.text_or_empty("input");
  record.prompt = "### Instruction:\n" + row.text("instruction") + "\n\n";
  if (!input.empty()) record.prompt += "### Input:\n" + input + "\n\n";
  record.prompt += "### Response:\n";
  record.completion = row.text(row.has("output") || !row.has("response") ? "output" : "response");
}

void read_reasoning(const Fields& row, Record& record) {
  const std::string thinking = row.text_or_empty("thinking");
  std::string answer = thinking.empty() ? "" : "<think>\n" + thinking + "\n</think>\n\n";
  answer += row.has("solution") ? row.text("solution") : row.text("answer");
  chat_of_two(record,
              row.text(row.has("problem")    ? "problem"
                       : row.has("question") ? "question"
                                             : "prompt"),
              std::move(answer));
}

void read_pair(const Fields& row, std::string_view prompt, std::string_view completion, Record& record) {
  if (row.is_list(prompt)) {
    std::string out;
    record.prompt_messages = append_messages(row, prompt, out);
    append_messages(row, completion, out);
    record.messages = "[" + out + "]";
    return;
  }
  record.prompt = row.text(prompt);
  record.completion = row.text(completion);
}

void read_preference(const Fields& row, Record& record) {
  if (!row.is_list("chosen")) {
    record.prompt = row.text("prompt");
    record.chosen = row.text("chosen");
    record.rejected = row.text("rejected");
    return;
  }
  std::string prompt, chosen, rejected;
  if (row.is_list("prompt")) {
    record.prompt_messages = append_messages(row, "prompt", prompt);
    append_messages(row, "chosen", chosen);
    append_messages(row, "rejected", rejected);
  } else {
    // whole conversations: what both begin with is the prompt (a `prompt` column repeats it as text)
    append_messages(row, "chosen", chosen);
    append_messages(row, "rejected", rejected);
    std::vector<std::string> a, b;
    for (element m : row.list_of("chosen")) a.push_back(simdjson::to_string(m));
    for (element m : row.list_of("rejected")) b.push_back(simdjson::to_string(m));
    size_t common = 0;
    while (common + 1 < a.size() && common + 1 < b.size() && a[common] == b[common]) ++common;
    if (common == 0)
      fail(ErrorCode::kInvalidInput, "{}: \"chosen\" and \"rejected\" share no first message; add a \"prompt\" column",
           row.where());
    const auto join = [](const std::vector<std::string>& parts, size_t from, size_t to) {
      std::string out;
      for (size_t i = from; i < to; ++i) out += (i > from ? "," : "") + parts[i];
      return out;
    };
    prompt = join(a, 0, common);
    chosen = join(a, common, a.size());
    rejected = join(b, common, b.size());
    record.prompt_messages = static_cast<int64_t>(common);
  }
  record.messages = "[" + prompt + "]";
  record.chosen = "[" + chosen + "]";
  record.rejected = "[" + rejected + "]";
}

std::vector<int32_t> read_ids(const Fields& row, std::string_view field, int64_t lowest) {
  std::vector<int32_t> ids;
  for (element item : row.list_of(field)) {
    int64_t id = 0;
    if (item.get_int64().get(id) != simdjson::SUCCESS || id < lowest || id > std::numeric_limits<int32_t>::max())
      fail(ErrorCode::kInvalidInput, "{}: field \"{}[{}]\" is {}, not a token id", row.where(), field, ids.size(),
           simdjson::to_string(item));
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void read_tokens(const Fields& row, Record& record) {
  record.input_ids = read_ids(row, "input_ids", 0);
  if (!row.has("labels")) return;
  record.labels = read_ids(row, "labels", -100);
  if (record.labels.size() != record.input_ids.size())
    fail(ErrorCode::kInvalidInput, "{}: {} labels for {} input_ids", row.where(), record.labels.size(),
         record.input_ids.size());
}

}  // namespace

std::string_view name_of(RecordFormat format) {
  static constexpr std::string_view kNames[] = {"text",         "alpaca",     "sharegpt",          "messages",
                                                "reasoning",    "preference", "prompt-completion", "question-answer",
                                                "input-output", "tokens"};
  return kNames[static_cast<size_t>(format)];
}

const std::vector<FormatInfo>& format_table() {
  static const std::vector<FormatInfo> kTable = {
      {"text", "text (or content)", "plain text, every token is learned; the end token is appended"},
      {"alpaca", "instruction, input (optional), output",
       "headings Instruction / Input / Response; the response is learned"},
      {"sharegpt", "conversations: [{from, value}]", "a chat (human, gpt, system, tool) in the model's template"},
      {"messages", "messages: [{role, content}], tools (optional)",
       "a chat in the model's template; assistant turns are learned"},
      {"reasoning", "problem, thinking (optional), solution", "a chat whose answer begins with <think>...</think>"},
      {"preference", "prompt, chosen, rejected", "pairs for dpo, orpo, simpo, kto; text or message lists"},
      {"prompt-completion", "prompt, completion (or response)",
       "plain continuation or message lists; the completion is learned"},
      {"question-answer", "question (or prompt), answer", "a chat of two turns; the answer is learned"},
      {"input-output", "input, output", "a chat of two turns; the output is learned"},
      {"tokens", "input_ids, labels (optional, -100 = ignored)", "ready token ids, taken as they are"},
  };
  return kTable;
}

std::optional<RecordFormat> detect_format(const std::vector<std::string>& columns) {
  const auto has = [&](std::string_view name) {
    return std::find(columns.begin(), columns.end(), name) != columns.end();
  };
  if (has("text")) return RecordFormat::kText;
  if (has("instruction")) return RecordFormat::kAlpaca;
  if (has("conversations")) return RecordFormat::kShareGpt;
  if (has("messages")) return RecordFormat::kMessages;
  if (has("problem") || has("thinking")) return RecordFormat::kReasoning;
  if (has("chosen") && has("rejected")) return RecordFormat::kPreference;
  if (has("prompt") && (has("completion") || has("response"))) return RecordFormat::kPromptCompletion;
  if ((has("question") || has("prompt")) && has("answer")) return RecordFormat::kQuestionAnswer;
  if (has("input") && has("output")) return RecordFormat::kInputOutput;
  if (has("input_ids")) return RecordFormat::kTokens;
  if (has("content")) return RecordFormat::kText;
  return std::nullopt;
}

struct RecordParser::Impl {
  ColumnFlags flags;
  simdjson::dom::parser parser, inner;
  std::string finite;  // the row in the words of simdjson

  object parse(const Row& row) {
    element root;
    auto error = parser.parse(row.json).get(root);
    // What Python reads and simdjson does not: NaN and Infinity (null here), integers beyond 64 bits
    if (error) {
      finite = in_words_of_simdjson(row);
      error = parser.parse(finite).get(root);
    }
    if (error) fail(ErrorCode::kInvalidInput, "{}: not valid JSON: {}", row.where(), simdjson::error_message(error));
    if (!root.is_object())
      fail(ErrorCode::kInvalidInput, "{}: a record must be an object, this is {}", row.where(), type_name(root));
    return root.get_object();
  }

  static std::string in_words_of_simdjson(const Row& row) {
    const std::string source = "at line";
    try {
      return formats::dump_json(formats::parse_json(row.json, source), -1, formats::NonFinite::kNull);
    } catch (const Error& e) {
      // "at line:<line>:<column>: <what>", where a record of JSON Lines has one line
      std::string_view what = e.what();
      what.remove_prefix(std::min(source.size() + 1, what.size()));
      if (what.starts_with("1:")) what.remove_prefix(2);
      fail(ErrorCode::kInvalidInput, "{}: not valid JSON: at character {}", row.where(), what);
    }
  }

  bool read_by_flags(const Fields& row, Record& record) {
    if (!flags.text_column.empty() || !flags.text_columns.empty()) {
      record.format = RecordFormat::kText;
      if (!flags.text_column.empty()) {
        record.text = row.text(flags.text_column);
        return true;
      }
      for (size_t i = 0; i < flags.text_columns.size(); ++i)
        record.text += (i ? flags.column_separator : std::string()) + row.text(flags.text_columns[i]);
      return true;
    }
    if (flags.prompt_column.empty() && flags.response_column.empty()) return false;
    const std::string prompt = flags.prompt_column.empty() ? "prompt" : flags.prompt_column;
    const std::string response = !flags.response_column.empty() ? flags.response_column
                                 : row.has("response")          ? "response"
                                                                : "completion";
    record.format = RecordFormat::kPromptCompletion;
    if (row.is_list(prompt))
      read_pair(row, prompt, response, record);
    else
      chat_of_two(record, row.text(prompt), row.text(response));
    return true;
  }
};

RecordParser::RecordParser(ColumnFlags flags) : impl_(std::make_unique<Impl>()) { impl_->flags = std::move(flags); }
RecordParser::~RecordParser() = default;

std::vector<std::string> RecordParser::columns(const Row& row) {
  return Fields(impl_->parse(row), row.where()).columns();
}

Record RecordParser::parse(const Row& source) {
  const Fields row(impl_->parse(source), source.where());
  Record record;
  record.where = source.where();
  if (row.has("answer") && !row.get("answer").is_array() && !row.get("answer").is_object())
    record.answer = row.text("answer");
  if (impl_->read_by_flags(row, record)) return record;
  const auto format = detect_format(row.columns());
  if (!format)
    fail(ErrorCode::kInvalidInput,
         "{}: no known record format has the columns {}; name yours with --text-column, or --prompt-column and "
         "--response-column (`pmetal dataset formats` lists what is accepted)",
         row.where(), row.list());
  record.format = *format;
  switch (*format) {
    case RecordFormat::kText:
      record.text = row.text(row.has("text") || !row.has("content") ? "text" : "content");
      break;
    case RecordFormat::kAlpaca: read_alpaca(row, record); break;
    case RecordFormat::kShareGpt: read_sharegpt(row, impl_->inner, record); break;
    case RecordFormat::kMessages: {
      std::string out;
      append_messages(row, "messages", row.list_or_text_of("messages", impl_->inner), out);
      record.messages = "[" + out + "]";
      break;
    }
    case RecordFormat::kReasoning: read_reasoning(row, record); break;
    case RecordFormat::kPreference: read_preference(row, record); break;
    case RecordFormat::kPromptCompletion:
      read_pair(row, "prompt", row.has("completion") || !row.has("response") ? "completion" : "response", record);
      break;
    case RecordFormat::kQuestionAnswer:
      chat_of_two(record, row.text(row.has("question") ? "question" : "prompt"), row.text("answer"));
      break;
    case RecordFormat::kInputOutput: chat_of_two(record, row.text("input"), row.text("output")); break;
    case RecordFormat::kTokens: read_tokens(row, record); break;
  }
  if (record.is_chat()) read_tools(row, impl_->inner, record);
  return record;
}

}  // namespace pmetal::data
