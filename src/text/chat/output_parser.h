// What a model writes → reasoning, content and tool calls, while it is written. One file per format under parsers/.
//
// Every parser consumes single bytes and decides on what came before alone, so the concatenated events do not depend
// on how the text was cut: streaming and batch give the same answer. Rules for all of them:
// * Reasoning stands at the start, between its markers, or from the first byte when the prompt opened it. A newline
//   beside the markers and the blank lines before the answer are dropped.
// * A call is announced (kToolStart) once its name is known to be a tool and its arguments begin; a block that fails
//   before that is content. Arguments that break off later are closed, so that they always parse.
// * Arguments grow by text that can no longer change: never half a number, literal, key or escape.
// * White space between and after calls is dropped.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/template/value.h"

namespace pmetal::text::chat {

struct OutputEvent {
  enum Kind { kContent, kReasoning, kToolStart, kToolArguments, kToolEnd } kind = kContent;
  std::string text;  // content, reasoning or argument text
  int call = -1;     // tool events: the index of the call
  std::string id;    // kToolStart
  std::string name;  // kToolStart
  bool operator==(const OutputEvent&) const = default;
};

struct ParserOptions {
  jinja::Value tools = {};                    // OpenAI function definitions; None or empty: calls are content
  bool calls_enabled = true;                  // false for tool_choice "none"
  bool starts_in_reasoning = false;           // the prompt ended inside the reasoning block, see prompt_opens_reasoning
  bool splits_reasoning = true;               // false: reasoning markers are content
  std::function<std::string()> make_id = {};  // ids of calls whose format has none; default: "call_" and a counter
};

class OutputParser {
 public:
  virtual ~OutputParser() = default;
  // appends events; neighbouring text events of one kind are merged within a call
  void feed(std::string_view bytes, std::vector<OutputEvent>& out);
  void finish(std::vector<OutputEvent>& out);  // the text has ended

 protected:
  virtual void push(char c, std::vector<OutputEvent>& out) = 0;
  virtual void end(std::vector<OutputEvent>& out) = 0;
};

// the whole answer at once
struct ParsedCall {
  std::string id, name, arguments;
  bool operator==(const ParsedCall&) const = default;
};
struct ParsedOutput {
  std::string content, reasoning;
  std::vector<ParsedCall> calls;
  bool operator==(const ParsedOutput&) const = default;
};
ParsedOutput collect(std::span<const OutputEvent> events);

// How calls look; each shape has its reader.
enum class CallShape {
  kNone,
  kJson,       // {"name", "arguments"} or a list of them after a marker
  kNamedJson,  // the name, a marker, then the arguments as JSON
  kTagged,     // the name and each argument in tags
  kPythonic,   // [f(a=1), g()]
  kGemma,      // call:name{key:<|"|>text<|"|>}
  kHarmony,    // messages with channels (gpt-oss)
};

struct ParserSpec {
  const char* name;  // as in Family::parser
  CallShape shape = CallShape::kNone;
  std::string_view reasoning_open = "<think>";
  std::string_view reasoning_close = "</think>";
  std::string_view opens[3] = {};   // what begins a block of calls
  std::string_view closes[3] = {};  // what may end it
  bool is_bare = false;             // a block may also begin the answer without a marker
  // kJson
  std::string_view name_key = "name";
  std::string_view arguments_key = "arguments";
  std::string_view separator = {};  // between calls of a block, beside white space
  // kNamedJson, kTagged
  std::string_view call_open = {};    // before each name ("" when `opens` says it)
  std::string_view name_prefix = {};  // before the name, not part of it; optional in the text
  std::string_view name_close = {};
  std::string_view id_open = {};  // between name and arguments: the id of the call
  std::string_view call_close = {};
  bool id_is_name = false;  // the text before name_close is the id, "functions.<name>:<index>"
  // kTagged
  std::string_view key_open = {}, key_close = {}, attribute_close = {}, value_open = {}, value_close = {};
  bool trims_newline = true;  // one newline at either end of a value is layout
};

std::span<const ParserSpec* const> all_parsers();
const ParserSpec* find_parser(std::string_view name);  // nullptr when there is none
// the format that a template teaches the model, by the markers it writes; "plain" when there are none
const ParserSpec& parser_for_template(std::string_view template_source);
std::unique_ptr<OutputParser> make_parser(const ParserSpec& spec, ParserOptions options);

// whether a rendered prompt ends with the reasoning marker opened and not closed
bool prompt_opens_reasoning(const ParserSpec& spec, std::string_view prompt);

}  // namespace pmetal::text::chat
