#include "formats/json_stream.h"

#include "base/error.h"

namespace pmetal::formats {

namespace {
bool is_space(int c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
// nesting deeper than this is not data; the parsers behind refuse it as well
constexpr int kMaxDepth = 512;
}  // namespace

JsonSplitter::JsonSplitter(std::unique_ptr<InputStream> input, std::string name)
    : input_(std::move(input)), name_(std::move(name)), buffer_(size_t{1} << 16, '\0') {}

int JsonSplitter::peek() {
  if (position_ == end_) {
    position_ = 0;
    end_ = input_->read(buffer_.data(), buffer_.size());
    if (end_ == 0) return -1;
  }
  return static_cast<unsigned char>(buffer_[position_]);
}

int JsonSplitter::get() {
  const int c = peek();
  if (c >= 0) ++position_;
  if (c == '\n') ++line_;
  return c;
}

void JsonSplitter::skip_space() {
  while (is_space(peek())) get();
}

void JsonSplitter::bad(const std::string& what) {
  fail(ErrorCode::kInvalidInput, "{}:{}: not valid JSON: {}", name_, line_, what);
}

bool JsonSplitter::next(std::string& record) {
  record.clear();
  skip_space();
  if (mode_ == Mode::kUnknown) {
    if (peek() == 0xef) {  // byte-order mark
      get();
      if (get() != 0xbb || get() != 0xbf) bad("it does not begin with '[' or '{'");
      skip_space();
    }
    if (peek() == '[') {
      get();
      mode_ = Mode::kArray;
      skip_space();
    } else {
      mode_ = Mode::kSequence;
    }
  }
  if (mode_ == Mode::kDone) return false;
  if (mode_ == Mode::kSequence && peek() < 0) return false;
  if (mode_ == Mode::kArray) {
    if (peek() == ']') {
      get();
      mode_ = Mode::kDone;
      skip_space();
      if (peek() >= 0) bad("something follows the closing ']'");
      return false;
    }
    if (!first_) {
      if (peek() != ',') bad(peek() < 0 ? "the array is never closed" : "',' or ']' expected between records");
      get();
      skip_space();
    }
  }
  first_ = false;
  record_line_ = line_;
  if (peek() != '{') bad(peek() < 0 ? "the file ends where a record is expected" : "a record must be an object {...}");
  int depth = 0;
  do {
    const int c = get();
    if (c < 0) bad(fmt::format("the record of line {} is never closed", record_line_));
    record.push_back(static_cast<char>(c));
    if (c == '"') {
      for (;;) {
        const int d = get();
        if (d < 0) bad(fmt::format("a string in the record of line {} is never closed", record_line_));
        record.push_back(static_cast<char>(d));
        if (d == '"') break;
        if (d == '\\') {
          const int e = get();
          if (e >= 0) record.push_back(static_cast<char>(e));
        }
      }
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) bad(fmt::format("nested deeper than {}", kMaxDepth));
    } else if (c == '}' || c == ']') {
      --depth;
    }
    if (record.size() > kMaxRecordBytes) bad(fmt::format("the record is longer than {} bytes", kMaxRecordBytes));
  } while (depth > 0);
  return true;
}

}  // namespace pmetal::formats
