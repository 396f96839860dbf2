#include "formats/csv.h"

#include "base/error.h"

namespace pmetal::formats {

CsvReader::CsvReader(std::unique_ptr<InputStream> input, std::string name, char separator)
    : input_(std::move(input)), name_(std::move(name)), buffer_(size_t{1} << 16, '\0'), separator_(separator) {
  fill();
  if (std::string_view(buffer_.data(), end_).starts_with("\xef\xbb\xbf")) position_ = 3;
  if (separator_ == kTold) separator_ = separator_of_header();
}

// looks no further than the buffer holds: header lines are short
char CsvReader::separator_of_header() {
  char found = ',';
  bool is_quoted = false, is_inside = false;
  for (size_t i = position_; i < end_ || fill_more(); ++i) {
    const char c = buffer_[i];
    const bool is_line_end = c == '\n' || c == '\r';
    if (!is_inside && is_line_end) continue;  // blank lines before it
    is_inside = true;
    if (c == '"') is_quoted = !is_quoted;
    if (is_quoted) continue;
    if (c == ',') return c;
    if (is_line_end) break;
    if (found == ',' && (c == ';' || c == '\t')) found = c;
  }
  return found;
}

bool CsvReader::fill_more() {
  const size_t n = end_ < buffer_.size() ? input_->read(buffer_.data() + end_, buffer_.size() - end_) : 0;
  end_ += n;
  return n > 0;
}

bool CsvReader::fill() {
  position_ = 0;
  end_ = 0;
  // at least three bytes at first, so that a byte-order mark is whole
  do {
    const size_t n = input_->read(buffer_.data() + end_, buffer_.size() - end_);
    if (n == 0) break;
    end_ += n;
  } while (end_ < 3);
  return end_ > 0;
}

int CsvReader::peek() {
  if (position_ == end_ && !fill()) return -1;
  return static_cast<unsigned char>(buffer_[position_]);
}

int CsvReader::get() {
  const int c = peek();
  if (c >= 0) ++position_;
  if (c == '\n') ++line_;
  return c;
}

bool CsvReader::next(std::vector<std::string>& fields) {
  fields.clear();
  while (peek() == '\n' || peek() == '\r') get();
  if (peek() < 0) return false;
  record_line_ = line_;
  size_t bytes = 0;
  for (;;) {
    std::string field;
    if (peek() == '"') {
      get();
      for (;;) {
        const int c = get();
        if (c < 0)
          fail(ErrorCode::kInvalidInput, "{}:{}: the quoted field {} is never closed", name_, record_line_,
               fields.size() + 1);
        if (c == '"') {
          if (peek() != '"') break;
          get();
        }
        field.push_back(static_cast<char>(c));
        if (++bytes > kMaxRecordBytes)
          fail(ErrorCode::kInvalidInput, "{}:{}: the record is longer than {} bytes; is a quote missing?", name_,
               record_line_, kMaxRecordBytes);
      }
      const int c = peek();
      if (c >= 0 && c != separator_ && c != '\n' && c != '\r')
        fail(ErrorCode::kInvalidInput, "{}:{}: '{}' follows the closing quote of field {}; double the quotes inside it",
             name_, line_, static_cast<char>(c), fields.size() + 1);
    } else {
      for (int c = peek(); c >= 0 && c != separator_ && c != '\n' && c != '\r'; c = peek()) {
        field.push_back(static_cast<char>(get()));
        if (++bytes > kMaxRecordBytes)
          fail(ErrorCode::kInvalidInput, "{}:{}: the record is longer than {} bytes", name_, record_line_,
               kMaxRecordBytes);
      }
    }
    fields.push_back(std::move(field));
    const int c = get();
    if (c == separator_) continue;
    if (c == '\r' && peek() == '\n') get();
    return true;
  }
}

std::string csv_field(std::string_view value, char separator) {
  const char special[] = {separator, '"', '\n', '\r', '\0'};
  const bool is_plain = value.find_first_of(special) == std::string_view::npos && !value.empty() &&
                        !value.starts_with("\xef");  // at the start of a file it could be taken for a byte-order mark
  if (is_plain) return std::string(value);
  std::string out = "\"";
  for (char c : value) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

}  // namespace pmetal::formats
