#include "text/chat/json_scanner.h"

#include <cctype>

namespace pmetal::text::chat {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

std::string JsonScanner::closing() const {
  std::string out = safe_in_string_ ? "\"" : "";
  for (size_t i = safe_stack_.size(); i-- > 0;) out += safe_stack_[i] == '{' ? '}' : ']';
  return out;
}

bool JsonScanner::push(char c) {
  key_ended = value_began = value_ended = false;
  if (token_ == kNumber) {
    if (number_byte(c)) {
      ++size_;
      return true;
    }
    if (number_state_ != 2 && number_state_ != 3 && number_state_ != 5 && number_state_ != 8) return false;
    token_ = kNoToken;
    end_value(size_);
  }
  if (is_done()) return false;
  ++size_;
  if (token_ == kString) return string_byte(c);
  if (token_ == kLiteral) {
    if (c != literal_rest_[0]) return false;
    literal_rest_.erase(0, 1);
    if (literal_rest_.empty()) {
      token_ = kNoToken;
      end_value(size_);
    }
    return true;
  }
  if (is_blank(c)) return true;
  switch (expect_) {
    case kValueOrEnd:
      if (c == ']') {
        close_container();
        return true;
      }
      return begin_value(c);
    case kValue: return begin_value(c);
    case kKeyOrEnd:
      if (c == '}') {
        close_container();
        return true;
      }
      [[fallthrough]];
    case kKey:
      if (c != '"') return false;
      token_ = kString;
      is_key_ = true;
      if (stack_.size() == 1) key_.clear();
      return true;
    case kColon:
      if (c != ':') return false;
      expect_ = kValue;
      return true;
    case kCommaOrEnd:
      if (c == ',') {
        expect_ = stack_.back() == '{' ? kKey : kValue;
        return true;
      }
      if (c != (stack_.back() == '{' ? '}' : ']')) return false;
      close_container();
      return true;
    case kDone: break;
  }
  return false;
}

bool JsonScanner::begin_value(char c) {
  if (stack_.size() == 1) value_began = true;
  if (c == '{' || c == '[') {
    if (stack_.size() >= 200) return false;
    stack_.push_back(c);
    expect_ = c == '{' ? kKeyOrEnd : kValueOrEnd;
    safe_ = size_;
    safe_stack_ = stack_;
    safe_in_string_ = false;
    return true;
  }
  if (c == '"') {
    token_ = kString;
    is_key_ = false;
    safe_ = size_;
    safe_stack_ = stack_;
    safe_in_string_ = true;
    return true;
  }
  if (c == 't' || c == 'f' || c == 'n') {
    token_ = kLiteral;
    literal_rest_ = c == 't' ? "rue" : c == 'f' ? "alse" : "ull";
    return true;
  }
  if (c != '-' && !is_digit(c)) return false;
  token_ = kNumber;
  number_state_ = c == '-' ? 1 : c == '0' ? 2 : 3;
  return true;
}

// states: 1 after '-', 2 after a leading 0, 3 integer digits, 4 after '.', 5 fraction, 6 after e, 7 after its sign, 8
bool JsonScanner::number_byte(char c) {
  switch (number_state_) {
    case 1:
      if (!is_digit(c)) return false;
      number_state_ = c == '0' ? 2 : 3;
      return true;
    case 3:
      if (is_digit(c)) return true;
      [[fallthrough]];
    case 2:
      if (c == '.') {
        number_state_ = 4;
        return true;
      }
      if ((c | 32) != 'e') return false;
      number_state_ = 6;
      return true;
    case 4:
      if (!is_digit(c)) return false;
      number_state_ = 5;
      return true;
    case 5:
      if (is_digit(c)) return true;
      if ((c | 32) != 'e') return false;
      number_state_ = 6;
      return true;
    case 6:
      if (c == '+' || c == '-') {
        number_state_ = 7;
        return true;
      }
      [[fallthrough]];
    default:
      if (!is_digit(c)) return false;
      number_state_ = 8;
      return true;
  }
}

bool JsonScanner::string_byte(char c) {
  const bool is_outer_key = is_key_ && stack_.size() == 1;
  if (escape_ == 1) {
    if (c == 'u') {
      escape_ = 5;
      unit_ = 0;
      return true;
    }
    if (std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos || needs_low_surrogate_) return false;
    escape_ = 0;
    if (is_outer_key) key_ += c;
  } else if (escape_ >= 2) {
    if (!std::isxdigit(static_cast<unsigned char>(c))) return false;
    unit_ = unit_ * 16 + static_cast<unsigned>(is_digit(c) ? c - '0' : (c | 32) - 'a' + 10);
    if (--escape_ > 1) return true;
    escape_ = 0;
    const bool is_low = unit_ >= 0xdc00 && unit_ < 0xe000;
    if (is_low != needs_low_surrogate_) return false;
    needs_low_surrogate_ = unit_ >= 0xd800 && unit_ < 0xdc00;
    if (is_outer_key) key_ += '?';
  } else if (c == '\\') {
    escape_ = 1;
    return true;
  } else if (needs_low_surrogate_ || static_cast<unsigned char>(c) < 0x20) {
    return false;
  } else if (c == '"') {
    token_ = kNoToken;
    if (is_key_) {
      key_ended = is_outer_key;
      expect_ = kColon;
    } else {
      end_value(size_);
    }
    return true;
  } else if (is_outer_key) {
    key_ += c;
  }
  if (!is_key_ && escape_ == 0 && !needs_low_surrogate_) safe_ = size_;
  return true;
}

void JsonScanner::end_value(size_t end) {
  safe_ = end;
  safe_stack_ = stack_;
  safe_in_string_ = false;
  if (stack_.size() == 1) {
    value_ended = true;
    value_end_ = end;
  }
  expect_ = stack_.empty() ? kDone : kCommaOrEnd;
}

void JsonScanner::close_container() {
  stack_.pop_back();
  end_value(size_);
}

}  // namespace pmetal::text::chat
