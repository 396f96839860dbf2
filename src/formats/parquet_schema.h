// Parquet's footer: schema tree, row groups, column chunks. Shared by reader and writer.
// Format: github.com/apache/parquet-format, parquet.thrift.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/parquet_decode.h"
#include "formats/thrift.h"

namespace pmetal::formats {

enum class ParquetRepetition : uint8_t { kRequired, kOptional, kRepeated };

// What a value means beyond its physical type.
enum class ParquetMeaning : uint8_t {
  kNone,
  kText,
  kJson,
  kDecimal,
  kDate,
  kTimeMillis,
  kTimeMicros,
  kTimeNanos,
  kTimestampMillis,
  kTimestampMicros,
  kTimestampNanos,
  kUnsigned,
  kUuid,
  kFloat16,
  kList,
  kMap,
};

struct ParquetNode {
  std::string name;
  ParquetRepetition repetition = ParquetRepetition::kRequired;
  ParquetMeaning meaning = ParquetMeaning::kNone;
  int max_definition = 0, max_repetition = 0;  // levels at this node
  std::vector<ParquetNode> children;           // empty for leaves
  // leaves
  ParquetType type = ParquetType::kBytes;
  int fixed_size = 0, scale = 0;
  int leaf = -1;       // index of the first leaf at or below this node
  int leaf_count = 0;  // leaves at or below
  bool is_leaf() const { return children.empty(); }
};

struct ParquetChunk {
  int codec = 0;
  int64_t n_values = 0, offset = 0, size_bytes = 0;  // all pages of the chunk: [offset, offset + size)
};
struct ParquetRowGroup {
  int64_t n_rows = 0;
  std::vector<ParquetChunk> chunks;  // one per leaf
};
struct ParquetFooter {
  ParquetNode root;
  std::vector<const ParquetNode*> leaves;
  std::vector<ParquetRowGroup> groups;
  int64_t n_rows = 0;
};

// Reads and checks the footer of a whole file's bytes. The result is boxed: `leaves` point into `root`.
std::unique_ptr<ParquetFooter> read_parquet_footer(std::string_view file, const std::string& name);

}  // namespace pmetal::formats
