#include "formats/block_codec.h"

#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include "base/error.h"
#include "formats/compression.h"

namespace pmetal::formats {
namespace {

// LZ4 block format: tokens of literal run and match, no frame around it.
std::string decompress_lz4(std::string_view in, size_t size, const std::string& what) {
  const auto bad = [&]() { fail(ErrorCode::kInvalidInput, "{}: lz4 data is damaged", what); };
  std::string out;
  out.reserve(size);
  size_t i = 0;
  const auto length = [&](size_t base) {
    if (base != 15) return base;
    uint8_t more;
    do {
      if (i >= in.size() || base > size) bad();
      more = static_cast<uint8_t>(in[i++]);
      base += more;
    } while (more == 255);
    return base;
  };
  while (i < in.size()) {
    const auto token = static_cast<uint8_t>(in[i++]);
    const size_t literals = length(token >> 4);
    if (literals > in.size() - i || literals > size - out.size()) bad();
    out.append(in.substr(i, literals));
    i += literals;
    if (i == in.size()) break;  // the last sequence has no match
    if (in.size() - i < 2) bad();
    const size_t distance = static_cast<uint8_t>(in[i]) | static_cast<size_t>(static_cast<uint8_t>(in[i + 1])) << 8;
    i += 2;
    const size_t match = length(token & 15) + 4;
    if (distance == 0 || distance > out.size() || match > size - out.size()) bad();
    for (size_t k = 0; k < match; ++k) out.push_back(out[out.size() - distance]);  // may overlap itself
  }
  return out;
}

std::string inflate_block(std::string_view in, size_t size, const std::string& what) {
  if (!in.starts_with("\x1f\x8b")) fail(ErrorCode::kInvalidInput, "{}: gzip data is damaged: no gzip header", what);
  const auto stream = open_bytes(in, what);
  std::string out(size, '\0');
  size_t n = 0;
  while (n < size) {
    const size_t got = stream->read(out.data() + n, size - n);
    if (got == 0) break;
    n += got;
  }
  out.resize(n);
  return out;
}

}  // namespace

std::string decompress_block(BlockCodec codec, std::string_view bytes, size_t size, const std::string& what) {
  std::string out;
  switch (codec) {
    case BlockCodec::kNone: out = std::string(bytes); break;
    case BlockCodec::kSnappy: {
      size_t length = 0;
      if (!snappy::GetUncompressedLength(bytes.data(), bytes.size(), &length) || length != size)
        fail(ErrorCode::kInvalidInput, "{}: snappy block of {} bytes where {} are declared", what, length, size);
      if (!snappy::Uncompress(bytes.data(), bytes.size(), &out))
        fail(ErrorCode::kInvalidInput, "{}: snappy data is damaged", what);
      break;
    }
    case BlockCodec::kGzip: out = inflate_block(bytes, size, what); break;
    case BlockCodec::kZstd: {
      out.resize(size);
      const size_t n = ZSTD_decompress(out.data(), out.size(), bytes.data(), bytes.size());
      if (ZSTD_isError(n)) fail(ErrorCode::kInvalidInput, "{}: zstd data is damaged: {}", what, ZSTD_getErrorName(n));
      out.resize(n);
      break;
    }
    case BlockCodec::kLz4Raw: out = decompress_lz4(bytes, size, what); break;
  }
  if (out.size() != size)
    fail(ErrorCode::kInvalidInput, "{}: {} bytes come out where {} are declared", what, out.size(), size);
  return out;
}

std::string compress_block(BlockCodec codec, std::string_view bytes) {
  std::string out;
  switch (codec) {
    case BlockCodec::kNone: return std::string(bytes);
    case BlockCodec::kSnappy: snappy::Compress(bytes.data(), bytes.size(), &out); return out;
    case BlockCodec::kZstd: {
      out.resize(ZSTD_compressBound(bytes.size()));
      const size_t n = ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3);
      PMETAL_ASSERT(!ZSTD_isError(n), "{}", ZSTD_getErrorName(n));
      out.resize(n);
      return out;
    }
    case BlockCodec::kGzip: {
      z_stream z{};
      PMETAL_ASSERT(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
      out.resize(deflateBound(&z, bytes.size()) + 32);
      z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
      z.avail_in = static_cast<uInt>(bytes.size());
      z.next_out = reinterpret_cast<Bytef*>(out.data());
      z.avail_out = static_cast<uInt>(out.size());
      const int rc = deflate(&z, Z_FINISH);
      out.resize(z.total_out);
      deflateEnd(&z);
      PMETAL_ASSERT(rc == Z_STREAM_END);
      return out;
    }
    case BlockCodec::kLz4Raw: break;
  }
  PMETAL_ASSERT(false, "no encoder for this codec");
  return out;
}

}  // namespace pmetal::formats
