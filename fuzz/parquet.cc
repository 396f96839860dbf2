// Parquet files from anywhere. Property: every row that comes out is a JSON object; everything else is Error. Work is
// bounded here, since a small file may claim many rows of nulls.
#include "formats/parquet.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pmetal;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    formats::ParquetReader reader(bytes, "fuzz.parquet");
    std::string row;
    for (int n = 0; n < 200 && reader.next(row); ++n)
      PMETAL_ASSERT(nlohmann::json::parse(row, nullptr, false).is_object(), "{}", row);
    formats::ParquetReader skipping(bytes, "fuzz.parquet");
    skipping.skip(3);
    skipping.next(row);
  } catch (const Error&) {
  }
  return 0;
}
