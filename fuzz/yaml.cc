// A YAML job file from anywhere: Error, or a value that survives dump and parse unchanged.
#include "formats/yaml.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pmetal;
  nlohmann::ordered_json value;
  try {
    value = formats::parse_yaml(std::string_view(reinterpret_cast<const char*>(data), size), "job.yaml");
  } catch (const Error&) {
    return 0;
  }
  const std::string dumped = formats::dump_yaml(value);
  constexpr size_t kSurelyWithinLimits = 4096;  // an expanded alias may make the dump longer than parse_yaml takes
  if (dumped.size() > kSurelyWithinLimits) return 0;
  const auto again = formats::parse_yaml(dumped, "dumped.yaml");
  PMETAL_ASSERT(formats::dump_json(again) == formats::dump_json(value), "{}", dumped);
  return 0;
}
