// Follows JSON byte by byte: what is still valid, where keys and values of the outermost object begin and end, and how
// much of the text can no longer change.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::text::chat {

class JsonScanner {
 public:
  // false: the text is no JSON value from here on (or the value has ended before c)
  bool push(char c);
  bool is_done() const { return expect_ == kDone; }
  size_t size() const { return size_; }

  // what the last push brought, for members of the outermost object (or elements of the outermost array)
  bool key_ended = false;    // key() is known
  bool value_began = false;  // at size() − 1
  bool value_ended = false;  // before size() (value_end())
  size_t value_end() const { return value_end_; }
  std::string_view key() const { return key_; }  // raw, between its quotes

  // bytes from the start that belong to complete tokens or to the inside of a string value
  size_t safe() const { return safe_; }
  // what closes the text cut at safe()
  std::string closing() const;

 private:
  enum Expect { kValue, kValueOrEnd, kKey, kKeyOrEnd, kColon, kCommaOrEnd, kDone };
  enum Token { kNoToken, kString, kNumber, kLiteral };
  bool begin_value(char c);
  void end_value(size_t end);
  bool string_byte(char c);
  bool number_byte(char c);
  void close_container();

  std::vector<char> stack_;       // '{' or '['
  std::vector<char> safe_stack_;  // at safe_
  bool safe_in_string_ = false;
  Expect expect_ = kValue;
  Token token_ = kNoToken;
  bool is_key_ = false;
  int escape_ = 0;  // 1: after a backslash, 2–5: hex digits to come
  unsigned unit_ = 0;
  bool needs_low_surrogate_ = false;
  int number_state_ = 0;
  std::string literal_rest_;
  std::string key_;
  size_t size_ = 0, safe_ = 0, value_end_ = 0;
};

}  // namespace pmetal::text::chat
