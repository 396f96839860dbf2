// Record streams from anywhere: lines, plain or compressed, and arrays. Properties: lines joined are the input without
// its line ends; each record cut from an array or sequence that is valid JSON is valid itself; errors are Error.
#include "formats/json_stream.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pmetal;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bool is_packed = bytes.starts_with("\x1f\x8b") || bytes.starts_with("\x28\xb5\x2f\xfd");
  constexpr size_t kMaxUnpacked = size_t{4} << 20;
  try {
    formats::LineReader lines(formats::open_bytes(bytes, "fuzz.jsonl"), "fuzz.jsonl");
    std::string_view line;
    size_t total = 0, n = 0;
    while (total < kMaxUnpacked && lines.next(line)) {
      total += line.size();
      ++n;
    }
    PMETAL_ASSERT(is_packed || (total <= size && total + 2 * n >= size), "{} bytes in {} lines of {}", total, n, size);
  } catch (const Error&) {
    PMETAL_ASSERT(is_packed, "plain lines cannot be wrong");
  }
  if (is_packed) return 0;
  const bool is_valid_array = nlohmann::json::parse(bytes, nullptr, false).is_array();
  try {
    formats::JsonSplitter splitter(formats::open_bytes(bytes, "fuzz.json"), "fuzz.json");
    std::string record;
    while (splitter.next(record)) PMETAL_ASSERT(!is_valid_array || nlohmann::json::accept(record), "{}", record);
  } catch (const Error&) {
  }
  return 0;
}
