// Compressed blocks held whole in memory: the pages of Parquet files. Every size is checked before memory is taken.
// Errors: Error(kInvalidInput) naming the object and the codec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pmetal::formats {

enum class BlockCodec : uint8_t { kNone, kSnappy, kGzip, kZstd, kLz4Raw };

// exactly `size` bytes out, else an error; `what` names the block
std::string decompress_block(BlockCodec codec, std::string_view bytes, size_t size, const std::string& what);
std::string compress_block(BlockCodec codec, std::string_view bytes);  // not kLz4Raw

}  // namespace pmetal::formats
