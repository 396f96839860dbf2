#include "formats/thrift.h"

#include "base/error.h"

namespace pmetal::formats {

namespace {
constexpr int kMaxDepth = 32;  // Parquet's own metadata nests 6 deep
}

void ThriftReader::bad(const char* what) const {
  fail(ErrorCode::kInvalidInput, "{}: damaged metadata at byte {}: {}", name_, at_, what);
}
void ThriftReader::enter() {
  if (++depth_ > kMaxDepth) bad("nested too deep");
}
uint8_t ThriftReader::byte() {
  if (at_ >= bytes_.size()) bad("it ends early");
  return static_cast<uint8_t>(bytes_[at_++]);
}
uint64_t ThriftReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t b = byte();
    value |= static_cast<uint64_t>(b & 0x7f) << shift;
    if (b < 0x80) return value;
  }
  bad("a number is longer than 64 bits");
}
int64_t ThriftReader::zigzag() {
  const uint64_t v = varint();
  return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
}
ThriftReader::Field ThriftReader::field(int16_t& last) {
  const uint8_t b = byte();
  if ((b & 15) == 0) return {};
  if ((b & 15) > 12) bad("unknown type");
  const int64_t id = (b >> 4) ? last + (b >> 4) : zigzag();
  if (id < 0 || id > 32767) bad("field number out of range");
  last = static_cast<int16_t>(id);
  return {last, static_cast<ThriftType>(b & 15)};
}
int64_t ThriftReader::list_size(Field f, ThriftType element) {
  if (f.type != ThriftType::kList && f.type != ThriftType::kSet) bad("a list is expected");
  const uint8_t b = byte();
  const uint64_t n = (b >> 4) == 15 ? varint() : b >> 4;
  if (n > 0 && static_cast<ThriftType>(b & 15) != element) bad("a list holds another type than declared");
  if (n > bytes_.size() - at_) bad("a list is longer than the file");  // each element takes a byte or more
  return static_cast<int64_t>(n);
}
int64_t ThriftReader::integer(Field f) {
  if (f.type == ThriftType::kByte) return static_cast<int8_t>(byte());
  if (f.type != ThriftType::kI16 && f.type != ThriftType::kI32 && f.type != ThriftType::kI64)
    bad("a number is expected");
  return zigzag();
}
bool ThriftReader::boolean(Field f) {
  if (f.type != ThriftType::kTrue && f.type != ThriftType::kFalse) bad("true or false is expected");
  return f.type == ThriftType::kTrue;
}
std::string_view ThriftReader::binary(Field f) {
  if (f.type != ThriftType::kBinary) bad("text is expected");
  return binary();
}
std::string_view ThriftReader::binary() {
  const uint64_t n = varint();
  if (n > bytes_.size() - at_) bad("text is longer than the file");
  const auto out = bytes_.substr(at_, n);
  at_ += n;
  return out;
}
void ThriftReader::skip(ThriftType type, bool is_field) {
  switch (type) {
    case ThriftType::kStop: bad("unknown type");
    case ThriftType::kTrue:
    case ThriftType::kFalse:
      if (!is_field) byte();
      break;
    case ThriftType::kByte: byte(); break;
    case ThriftType::kI16:
    case ThriftType::kI32:
    case ThriftType::kI64: varint(); break;
    case ThriftType::kDouble:
      for (int i = 0; i < 8; ++i) byte();
      break;
    case ThriftType::kBinary: binary(); break;
    case ThriftType::kList:
    case ThriftType::kSet: {
      enter();
      const uint8_t b = byte();
      const uint64_t n = (b >> 4) == 15 ? varint() : b >> 4;
      if ((b & 15) > 12) bad("unknown type");
      if (n > bytes_.size() - at_) bad("a list is longer than the file");
      for (uint64_t i = 0; i < n; ++i) skip(static_cast<ThriftType>(b & 15), false);
      --depth_;
      break;
    }
    case ThriftType::kMap: {
      enter();
      const uint64_t n = varint();
      if (n > bytes_.size() - at_) bad("a map is longer than the file");
      const uint8_t types = n ? byte() : 0;
      if ((types >> 4) > 12 || (types & 15) > 12) bad("unknown type");
      for (uint64_t i = 0; i < n; ++i) {
        skip(static_cast<ThriftType>(types >> 4), false);
        skip(static_cast<ThriftType>(types & 15), false);
      }
      --depth_;
      break;
    }
    case ThriftType::kStruct: read_struct([this](Field f) { skip(f); }); break;
  }
}

void ThriftWriter::varint(uint64_t value) {
  for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
  out_ += static_cast<char>(value);
}
void ThriftWriter::header(int16_t id, ThriftType type) {
  const int delta = id - last_.back();
  last_.back() = id;
  PMETAL_ASSERT(delta > 0 && delta < 16, "field {}", id);
  out_ += static_cast<char>(delta << 4 | static_cast<int>(type));
}
void ThriftWriter::number(int16_t id, ThriftType type, int64_t value) {
  header(id, type);
  element(value);
}
void ThriftWriter::element(int64_t value) {
  varint(static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63));
}
void ThriftWriter::binary(int16_t id, std::string_view value) {
  header(id, ThriftType::kBinary);
  element(value);
}
void ThriftWriter::element(std::string_view value) {
  varint(value.size());
  out_ += value;
}
void ThriftWriter::list(int16_t id, ThriftType element, size_t n) {
  header(id, ThriftType::kList);
  if (n < 15) {
    out_ += static_cast<char>(n << 4 | static_cast<size_t>(element));
  } else {
    out_ += static_cast<char>(0xf0 | static_cast<int>(element));
    varint(n);
  }
}
void ThriftWriter::structure(int16_t id) {
  header(id, ThriftType::kStruct);
  begin_struct();
}

}  // namespace pmetal::formats
