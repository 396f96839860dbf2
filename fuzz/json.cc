// JSON from anywhere, read as a model's config. Properties: without NaN and Infinity exactly the texts are accepted
// that the RFC parser of nlohmann accepts; what is accepted survives dump and parse; typed access gives a value or
// Error.
#include "formats/json.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "formats/json_reader.h"

namespace {

using namespace pmetal;
using nlohmann::ordered_json;

std::optional<ordered_json> parse(std::string_view text, bool allow_nonfinite) {
  try {
    return formats::parse_json(text, "config.json", {.limits = {.allow_nonfinite = allow_nonfinite}});
  } catch (const Error&) {
    return std::nullopt;
  }
}

template <class Read>
void attempt(Read read) {
  try {
    read();
  } catch (const Error&) {
  }
}

void read_as_config(const ordered_json& json) {
  const formats::JsonReader config(json, "config.json");
  for (const std::string& key : config.keys()) {
    attempt([&] { (void)config.integer(key); });
    attempt([&] { (void)config.integer(key, 1, 1 << 20); });
    attempt([&] { (void)config.number(key); });
    attempt([&] { (void)config.boolean(key); });
    attempt([&] { (void)config.string(key); });
    attempt([&] { (void)config.integers(key); });
    attempt([&] { (void)config.numbers(key); });
    attempt([&] { (void)config.strings(key); });
    attempt([&] { (void)config.booleans(key); });
    attempt([&] { read_as_config(config.object(key).raw()); });
    attempt([&] { (void)config.objects(key); });
    attempt([&] { (void)config.maybe_integer(key); });
    attempt([&] { (void)config.maybe_number(key); });
    attempt([&] { (void)config.maybe_string(key); });
    attempt([&] { (void)config.maybe_object(key); });
    const int n_types = config.is_object(key) + config.is_array(key) + config.is_string(key) + config.is_number(key) +
                        config.is_bool(key);
    PMETAL_ASSERT(n_types == (config.has(key) ? 1 : 0), "{} types", n_types);
    attempt([&] { (void)config.raw(key); });
  }
  PMETAL_ASSERT(config.unread().empty(), "every key was asked for");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  constexpr size_t kSurelyShallow = 500;                        // our depth limit is 512, nlohmann has none
  if (size < kSurelyShallow && text.find('\0') == text.npos) {  // nlohmann stops at a NUL byte, we refuse it
    const bool is_accepted = parse(text, false).has_value();
    PMETAL_ASSERT(is_accepted == ordered_json::accept(text), "accepted: {}", is_accepted);
  }
  const auto json = parse(text, true);
  if (!json) return 0;
  for (const int indent : {-1, 2}) {
    const std::string dumped = formats::dump_json(*json, indent);
    const auto again = parse(dumped, true);
    PMETAL_ASSERT(again && formats::dump_json(*again, indent) == dumped, "{}", dumped);
  }
  attempt([&] { read_as_config(*json); });
  return 0;
}
