// Parquet's value encodings: from the bytes of one page to plain vectors. Untrusted input; every count is checked.
// Format: github.com/apache/parquet-format, Encodings.md.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::formats {

enum class ParquetType : uint8_t { kBool, kInt32, kInt64, kInt96, kFloat, kDouble, kBytes, kFixed };
enum class ParquetEncoding : uint8_t {
  kPlain = 0,
  kPlainDictionary = 2,
  kRle = 3,
  kBitPacked = 4,
  kDeltaBinaryPacked = 5,
  kDeltaLengthByteArray = 6,
  kDeltaByteArray = 7,
  kRleDictionary = 8,
  kByteStreamSplit = 9,
};

// Values of one page or dictionary; one of the vectors is in use. `bytes` point into `storage` or into the page.
struct ParquetValues {
  std::vector<int64_t> integers;        // bool, int32 (sign-extended), int64
  std::vector<double> numbers;          // float, double
  std::vector<std::string_view> bytes;  // byte arrays, fixed, int96
  std::deque<std::string> storage;
  size_t size() const { return integers.size() + numbers.size() + bytes.size(); }
};

// A page that says it holds more values than this is refused: run lengths let a few bytes claim billions.
inline constexpr int64_t kMaxPageValues = int64_t{1} << 24;
inline constexpr int64_t kMaxPageBytes = int64_t{1} << 29;

// `count` unsigned values of `bit_width` (0..32) bits: runs and bit-packed groups. Advances `in`.
std::vector<uint32_t> decode_rle(std::string_view& in, int bit_width, int64_t count, const std::string& what);
// the retired encoding of levels: most significant bits first, no runs
std::vector<uint32_t> decode_bit_packed(std::string_view& in, int bit_width, int64_t count, const std::string& what);
std::vector<int64_t> decode_delta_integers(std::string_view& in, int64_t count, const std::string& what);

// `count` values; `fixed_size` for kFixed. Not for dictionary encodings.
ParquetValues decode_values(ParquetEncoding encoding, ParquetType type, int fixed_size, std::string_view in,
                            int64_t count, const std::string& what);

}  // namespace pmetal::formats
