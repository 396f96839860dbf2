#include "formats/parquet_decode.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"

namespace pmetal::formats {
namespace {

[[noreturn]] void bad(const std::string& what, const char* why) {
  fail(ErrorCode::kInvalidInput, "{}: damaged page: {}", what, why);
}

uint64_t varint(std::string_view& in, const std::string& what) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (in.empty()) bad(what, "it ends early");
    const auto b = static_cast<uint8_t>(in.front());
    in.remove_prefix(1);
    value |= static_cast<uint64_t>(b & 0x7f) << shift;
    if (b < 0x80) return value;
  }
  bad(what, "a number is longer than 64 bits");
}
int64_t zigzag(std::string_view& in, const std::string& what) {
  const uint64_t v = varint(in, what);
  return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
}

template <class T>
T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// bits [at, at + width) of `in`, least significant first; the caller has checked the bounds
uint64_t bits_at(std::string_view in, uint64_t at, int width) {
  uint64_t value = 0;
  for (int done = 0; done < width;) {
    const auto byte = static_cast<uint8_t>(in[at / 8]);
    const int offset = static_cast<int>(at % 8), take = std::min(8 - offset, width - done);
    value |= static_cast<uint64_t>((byte >> offset) & ((1u << take) - 1)) << done;
    done += take;
    at += static_cast<uint64_t>(take);
  }
  return value;
}

void check_count(int64_t count, const std::string& what) {
  if (count < 0 || count > kMaxPageValues)
    fail(ErrorCode::kInvalidInput, "{}: the page claims {} values; at most {} are accepted", what, count,
         kMaxPageValues);
}

int width_of(ParquetType type, int fixed_size) {
  switch (type) {
    case ParquetType::kInt32:
    case ParquetType::kFloat: return 4;
    case ParquetType::kInt64:
    case ParquetType::kDouble: return 8;
    case ParquetType::kInt96: return 12;
    case ParquetType::kFixed: return fixed_size;
    default: return 0;
  }
}

void append_fixed(ParquetValues& out, ParquetType type, const char* from, int width) {
  switch (type) {
    case ParquetType::kInt32: out.integers.push_back(load<int32_t>(from)); break;
    case ParquetType::kInt64: out.integers.push_back(load<int64_t>(from)); break;
    case ParquetType::kFloat: out.numbers.push_back(load<float>(from)); break;
    case ParquetType::kDouble: out.numbers.push_back(load<double>(from)); break;
    default: out.bytes.emplace_back(from, static_cast<size_t>(width));
  }
}

ParquetValues decode_plain(ParquetType type, int fixed_size, std::string_view in, int64_t count,
                           const std::string& what) {
  ParquetValues out;
  const auto n = static_cast<size_t>(count);
  if (type == ParquetType::kBool) {
    if (in.size() < (n + 7) / 8) bad(what, "it ends early");
    out.integers.reserve(n);
    for (size_t i = 0; i < n; ++i) out.integers.push_back(static_cast<uint8_t>(in[i / 8]) >> (i % 8) & 1);
    return out;
  }
  if (type == ParquetType::kBytes) {
    out.bytes.reserve(std::min(n, in.size() / 4));
    for (size_t i = 0; i < n; ++i) {
      if (in.size() < 4) bad(what, "it ends early");
      const auto length = load<uint32_t>(in.data());
      in.remove_prefix(4);
      if (length > in.size()) bad(what, "a value is longer than the page");
      out.bytes.push_back(in.substr(0, length));
      in.remove_prefix(length);
    }
    return out;
  }
  const auto width = static_cast<size_t>(width_of(type, fixed_size));
  if (width == 0 || in.size() / width < n) bad(what, "it ends early");
  for (size_t i = 0; i < n; ++i) append_fixed(out, type, in.data() + i * width, static_cast<int>(width));
  return out;
}

ParquetValues decode_stream_split(ParquetType type, int fixed_size, std::string_view in, int64_t count,
                                  const std::string& what) {
  const auto width = static_cast<size_t>(width_of(type, fixed_size)), n = static_cast<size_t>(count);
  if (width == 0 || in.size() / width < n) bad(what, "it ends early");
  ParquetValues out;
  std::string& joined = out.storage.emplace_back(n * width, '\0');
  for (size_t k = 0; k < width; ++k)
    for (size_t i = 0; i < n; ++i) joined[i * width + k] = in[k * n + i];
  for (size_t i = 0; i < n; ++i) append_fixed(out, type, joined.data() + i * width, static_cast<int>(width));
  return out;
}

std::vector<std::string_view> decode_delta_lengths(std::string_view& in, int64_t count, const std::string& what) {
  const auto lengths = decode_delta_integers(in, count, what);
  std::vector<std::string_view> out;
  out.reserve(lengths.size());
  for (int64_t length : lengths) {
    if (length < 0 || static_cast<uint64_t>(length) > in.size()) bad(what, "a value is longer than the page");
    out.push_back(in.substr(0, static_cast<size_t>(length)));
    in.remove_prefix(static_cast<size_t>(length));
  }
  return out;
}

ParquetValues decode_delta_bytes(std::string_view in, int64_t count, const std::string& what) {
  ParquetValues out;
  const auto prefixes = decode_delta_integers(in, count, what);
  const auto suffixes = decode_delta_lengths(in, count, what);
  size_t total = 0;
  std::string_view last;
  for (size_t i = 0; i < suffixes.size(); ++i) {
    if (prefixes[i] < 0 || static_cast<uint64_t>(prefixes[i]) > last.size())
      bad(what, "a prefix is longer than the value before");
    const auto prefix = static_cast<size_t>(prefixes[i]);
    total += prefix + suffixes[i].size();
    if (total > static_cast<size_t>(kMaxPageBytes)) bad(what, "its values are larger than any page may be");
    std::string& value = out.storage.emplace_back();
    value.reserve(prefix + suffixes[i].size());
    value.append(last.substr(0, prefix)).append(suffixes[i]);
    last = value;
    out.bytes.push_back(last);
  }
  return out;
}

}  // namespace

std::vector<uint32_t> decode_rle(std::string_view& in, int bit_width, int64_t count, const std::string& what) {
  check_count(count, what);
  if (bit_width < 0 || bit_width > 32) bad(what, "a bit width above 32");
  std::vector<uint32_t> out;
  out.reserve(static_cast<size_t>(count));
  const auto n = static_cast<size_t>(count);
  while (out.size() < n) {
    const uint64_t header = varint(in, what);
    if (header & 1) {
      const uint64_t groups = header >> 1;
      if (groups == 0) continue;
      // the last group may be cut short by writers that drop its padding
      const uint64_t values =
          std::min<uint64_t>(groups > (uint64_t{1} << 40) ? ~uint64_t{0} : groups * 8, n - out.size());
      if ((values * static_cast<uint64_t>(bit_width) + 7) / 8 > in.size()) bad(what, "it ends early");
      for (uint64_t i = 0; i < values; ++i)
        out.push_back(static_cast<uint32_t>(bits_at(in, i * static_cast<uint64_t>(bit_width), bit_width)));
      const uint64_t bytes = groups > in.size() ? in.size() : groups * static_cast<uint64_t>(bit_width);
      in.remove_prefix(std::min<uint64_t>(bytes, in.size()));
    } else {
      const uint64_t run = header >> 1;
      const auto bytes = static_cast<size_t>((bit_width + 7) / 8);
      if (bytes > in.size()) bad(what, "it ends early");
      if (run == 0) bad(what, "a run of no values");
      uint32_t value = 0;
      for (size_t k = 0; k < bytes; ++k) value |= static_cast<uint32_t>(static_cast<uint8_t>(in[k])) << (8 * k);
      in.remove_prefix(bytes);
      out.insert(out.end(), static_cast<size_t>(std::min<uint64_t>(run, n - out.size())), value);
    }
  }
  return out;
}

std::vector<uint32_t> decode_bit_packed(std::string_view& in, int bit_width, int64_t count, const std::string& what) {
  check_count(count, what);
  const uint64_t bytes = (static_cast<uint64_t>(count) * static_cast<uint64_t>(bit_width) + 7) / 8;
  if (bytes > in.size()) bad(what, "it ends early");
  std::vector<uint32_t> out;
  uint64_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t value = 0;
    for (int k = 0; k < bit_width; ++k, ++at)
      value = value << 1 | (static_cast<uint8_t>(in[at / 8]) >> (7 - at % 8) & 1);
    out.push_back(value);
  }
  in.remove_prefix(bytes);
  return out;
}

std::vector<int64_t> decode_delta_integers(std::string_view& in, int64_t count, const std::string& what) {
  check_count(count, what);
  const uint64_t block = varint(in, what), miniblocks = varint(in, what), total = varint(in, what);
  auto value = static_cast<uint64_t>(zigzag(in, what));
  if (block == 0 || block > (1u << 20) || miniblocks == 0 || miniblocks > 512 || block % miniblocks != 0)
    bad(what, "impossible sizes of delta blocks");
  if (total != static_cast<uint64_t>(count)) bad(what, "another number of deltas than of values");
  std::vector<int64_t> out;
  if (count == 0) return out;
  out.reserve(static_cast<size_t>(count));
  out.push_back(static_cast<int64_t>(value));
  const uint64_t per_miniblock = block / miniblocks;
  while (out.size() < total) {
    const auto least = static_cast<uint64_t>(zigzag(in, what));
    if (in.size() < miniblocks) bad(what, "it ends early");
    const std::string_view widths = in.substr(0, miniblocks);
    in.remove_prefix(miniblocks);
    for (uint64_t m = 0; m < miniblocks && out.size() < total; ++m) {
      const int width = static_cast<uint8_t>(widths[m]);
      if (width > 64) bad(what, "a bit width above 64");
      const uint64_t bytes = (per_miniblock * static_cast<uint64_t>(width) + 7) / 8;
      const uint64_t values = std::min<uint64_t>(per_miniblock, total - out.size());
      if ((values * static_cast<uint64_t>(width) + 7) / 8 > in.size()) bad(what, "it ends early");
      for (uint64_t i = 0; i < values; ++i) {
        value += least + bits_at(in, i * static_cast<uint64_t>(width), width);
        out.push_back(static_cast<int64_t>(value));
      }
      in.remove_prefix(std::min<uint64_t>(bytes, in.size()));
    }
  }
  return out;
}

ParquetValues decode_values(ParquetEncoding encoding, ParquetType type, int fixed_size, std::string_view in,
                            int64_t count, const std::string& what) {
  check_count(count, what);
  const bool is_integer = type == ParquetType::kInt32 || type == ParquetType::kInt64;
  const bool is_bytes = type == ParquetType::kBytes || type == ParquetType::kFixed;
  ParquetValues out;
  switch (encoding) {
    case ParquetEncoding::kPlain: return decode_plain(type, fixed_size, in, count, what);
    case ParquetEncoding::kByteStreamSplit: return decode_stream_split(type, fixed_size, in, count, what);
    case ParquetEncoding::kRle:
      if (type != ParquetType::kBool) break;
      if (in.size() < 4) bad(what, "it ends early");
      in.remove_prefix(4);
      for (uint32_t v : decode_rle(in, 1, count, what)) out.integers.push_back(v);
      return out;
    case ParquetEncoding::kDeltaBinaryPacked:
      if (!is_integer) break;
      out.integers = decode_delta_integers(in, count, what);
      if (type == ParquetType::kInt32)
        for (auto& v : out.integers) v = static_cast<int32_t>(v);  // deltas wrap in 32 bits
      return out;
    case ParquetEncoding::kDeltaLengthByteArray:
      if (type != ParquetType::kBytes) break;
      out.bytes = decode_delta_lengths(in, count, what);
      return out;
    case ParquetEncoding::kDeltaByteArray:
      if (!is_bytes) break;
      return decode_delta_bytes(in, count, what);
    default: break;
  }
  fail(ErrorCode::kUnsupported, "{}: encoding {} does not fit values of type {}", what, static_cast<int>(encoding),
       static_cast<int>(type));
}

}  // namespace pmetal::formats
