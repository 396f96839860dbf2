// Readers of tool calls: one block of calls each, byte by byte. See output_parser.h for the rules.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat/output_parser.h"

namespace pmetal::text::chat {

// The tools of a request and where events go.
class CallSink {
 public:
  CallSink(const ParserOptions& options, std::vector<OutputEvent>*& out) : options_(options), out_(out) {}

  bool is_tool(std::string_view name) const { return parameters(name) != nullptr; }
  void start(std::string_view name, std::string id = "");
  void arguments(std::string_view text);
  void end();
  bool is_open() const { return is_open_; }
  int n_started() const { return next_; }
  // the text of a value as JSON of the type that the tool's schema gives the parameter
  std::string typed(std::string_view tool, std::string_view key, const std::string& text) const;

 private:
  const jinja::Value* parameters(std::string_view name) const;  // schema or None of a known tool, nullptr otherwise

  const ParserOptions& options_;
  std::vector<OutputEvent>*& out_;
  int next_ = 0;
  bool is_open_ = false;
};

class CallReader {
 public:
  virtual ~CallReader() = default;
  enum class Status {
    kMore,
    kDone,        // the block has ended with this byte
    kDoneBefore,  // it had ended before this byte, which is text again
    kReject,      // no call after all: everything since the last call is content
  };
  virtual Status push(char c, CallSink& sink) = 0;
  // the text ends inside the block; false: what came since the last call is content
  virtual bool finish(CallSink& sink) = 0;
};

std::unique_ptr<CallReader> make_json_reader(const ParserSpec& spec, bool has_marker);
std::unique_ptr<CallReader> make_named_json_reader(const ParserSpec& spec, std::string_view opened_by);
std::unique_ptr<CallReader> make_tagged_reader(const ParserSpec& spec, std::string_view opened_by);
std::unique_ptr<CallReader> make_pythonic_reader(const ParserSpec& spec, bool has_marker);
std::unique_ptr<CallReader> make_gemma_reader(const ParserSpec& spec);

// Matches one of several literals, white space before them aside.
class LiteralMatcher {
 public:
  enum Result { kMore = -1, kMismatch = -2 };  // otherwise the index of the literal; empty literals never match
  int push(char c, std::initializer_list<std::string_view> literals);
  void reset() { text_.clear(); }
  bool is_blank() const { return text_.empty(); }

 private:
  std::string text_;
};

}  // namespace pmetal::text::chat
