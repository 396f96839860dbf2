// CSV from anywhere. Properties: fields that are written again with csv_field() are read back equal; errors are Error.
#include "formats/csv.h"

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pmetal;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    formats::CsvReader reader(formats::open_bytes(bytes, "fuzz.csv"), "fuzz.csv", formats::CsvReader::kTold);
    std::vector<std::string> fields, again;
    while (reader.next(fields)) {
      // the first field keeps the line from looking like a compressed file
      std::string line = "x";
      for (const auto& f : fields) line += "," + formats::csv_field(f);
      formats::CsvReader check(formats::open_bytes(line, "again.csv"), "again.csv");
      const bool has_row = check.next(again);
      again.erase(again.begin(), again.begin() + (has_row ? 1 : 0));
      PMETAL_ASSERT(has_row && again == fields, "{}", line);
    }
  } catch (const Error&) {
  }
  return 0;
}
