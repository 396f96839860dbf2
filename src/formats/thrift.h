// Thrift compact protocol, as far as Parquet's metadata needs it: a bounds-checked reader over untrusted bytes and a
// small writer. Format: github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::formats {

enum class ThriftType : uint8_t {
  kStop = 0,
  kTrue = 1,
  kFalse = 2,
  kByte = 3,
  kI16 = 4,
  kI32 = 5,
  kI64 = 6,
  kDouble = 7,
  kBinary = 8,
  kList = 9,
  kSet = 10,
  kMap = 11,
  kStruct = 12,
};

class ThriftReader {
 public:
  ThriftReader(std::string_view bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {}
  struct Field {
    int16_t id = 0;
    ThriftType type = ThriftType::kStop;
  };
  // Walks the fields of a struct: body(field) must read or skip() each value.
  template <class Body>
  void read_struct(Body&& body) {
    enter();
    int16_t last = 0;
    for (Field f = field(last); f.type != ThriftType::kStop; f = field(last)) body(f);
    --depth_;
  }
  // body() reads one element, n times
  template <class Body>
  void read_list(Field f, ThriftType element, Body&& body) {
    const int64_t n = list_size(f, element);
    for (int64_t i = 0; i < n; ++i) body();
  }
  int64_t integer(Field f);
  bool boolean(Field f);
  std::string_view binary(Field f);
  std::string_view binary();  // an element of a list
  int64_t zigzag();
  void skip(Field f) { skip(f.type, true); }
  size_t position() const { return at_; }

 private:
  [[noreturn]] void bad(const char* what) const;
  void enter();
  Field field(int16_t& last);
  int64_t list_size(Field f, ThriftType element);
  uint64_t varint();
  uint8_t byte();
  void skip(ThriftType type, bool is_field);
  std::string_view bytes_;
  std::string name_;
  size_t at_ = 0;
  int depth_ = 0;
};

class ThriftWriter {
 public:
  void begin_struct() { last_.push_back(0); }
  void end_struct() {
    out_ += '\0';
    last_.pop_back();
  }
  void i32(int16_t id, int64_t value) { number(id, ThriftType::kI32, value); }
  void i64(int16_t id, int64_t value) { number(id, ThriftType::kI64, value); }
  void boolean(int16_t id, bool value) { header(id, value ? ThriftType::kTrue : ThriftType::kFalse); }
  void binary(int16_t id, std::string_view value);
  void list(int16_t id, ThriftType element, size_t n);
  void structure(int16_t id);  // begins a struct in a field; end_struct() ends it
  void element(std::string_view value);
  void element(int64_t value);
  const std::string& bytes() const { return out_; }

 private:
  void header(int16_t id, ThriftType type);
  void number(int16_t id, ThriftType type, int64_t value);
  void varint(uint64_t value);
  std::string out_;
  std::vector<int16_t> last_;
};

}  // namespace pmetal::formats
