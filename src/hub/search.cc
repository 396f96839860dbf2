#include "hub/search.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"
#include "hub/names.h"
#include "hub/workers.h"

namespace pmetal::hub {
namespace {

using Json = nlohmann::ordered_json;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

const Json* member(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_at(const Json& object, const char* key) {
  const Json* value = member(object, key);
  return value && value->is_string() ? value->get<std::string>() : "";
}

int64_t count_at(const Json& object, const char* key) {
  const Json* value = member(object, key);
  return value && value->is_number_integer() ? std::max<int64_t>(value->get<int64_t>(), 0) : 0;
}

// "7", "0.5", "8x7" (eight experts of seven)
std::optional<double> number_of(const std::string& text) {
  if (text.empty() || text.find_first_not_of("0123456789.x") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  if (*end == 'x' && end != text.c_str() && end[1] != 0) value *= std::strtod(end + 1, &end);
  return *end == 0 && value > 0 && value < 1e5 ? std::optional(value) : std::nullopt;
}

std::optional<Precision> precision_from_name(const std::string& name) {
  const std::string text = lower(name);
  const auto has = [&](const char* word) { return text.find(word) != std::string::npos; };
  for (const char* word : {"4bit", "4-bit", "int4", "w4a16", "nf4", "awq", "gptq", "mxfp4", "nvfp4", "q4_", "gguf"})
    if (has(word)) return Precision::k4Bit;  // of GGUF repositories q4_k_m is taken
  for (const char* word : {"8bit", "8-bit", "int8", "w8a8", "fp8", "q8_"})
    if (has(word)) return Precision::k8Bit;
  return std::nullopt;
}

std::optional<ModelSize> size_of(const Json& entry, const std::string& name) {
  std::optional<ModelSize> size = size_from_name(name);
  const Json* tensors = member(entry, "safetensors");
  const auto total = static_cast<double>(tensors ? count_at(*tensors, "total") : 0);
  // what packed weights count is not parameters, so the name goes first there
  if (total > 0 && !(size && size->precision != Precision::kF16)) {
    if (!size) size = ModelSize{.precision = precision_from_name(name).value_or(Precision::kF16)};
    size->params_b = total / 1e9;
  }
  return size;
}

}  // namespace

std::optional<ModelSize> size_from_name(const std::string& name) {
  ModelSize size{.precision = precision_from_name(name).value_or(Precision::kF16)};
  std::string words = lower(name.substr(name.find('/') + 1));
  for (size_t begin = 0; begin < words.size();) {
    const size_t end = std::min(words.find_first_of("-_ ", begin), words.size());
    std::string word = words.substr(begin, end - begin);
    begin = end + 1;
    if (word.size() < 2 || (word.back() != 'b' && word.back() != 'm')) continue;
    const double unit = word.back() == 'b' ? 1 : 1e-3;
    word.pop_back();
    const bool is_active = word.front() == 'a';
    const auto number = number_of(is_active ? word.substr(1) : word);
    double& place = is_active ? size.active_b : size.params_b;
    if (number && place == 0) place = *number * unit;
  }
  return size.params_b > 0 ? std::optional(size) : std::nullopt;
}

std::vector<FoundModel> search_models(const Settings& settings, const std::string& words, int64_t limit,
                                      const std::function<bool()>& goes_on) {
  if (settings.offline)
    fail(ErrorCode::kNotFound, "search: HF_HUB_OFFLINE is set; unset it to ask {}", settings.endpoint);
  std::string url = fmt::format("{}/api/models?search={}&limit={}&sort=downloads&direction=-1", settings.endpoint,
                                escape_value(words), limit);
  for (const char* field : {"safetensors", "downloads", "likes", "pipeline_tag", "gated"})
    url += "&expand%5B%5D=" + std::string(field);
  HttpResponse response;
  std::atomic<bool> stop{false};
  run_tasks(settings, stop, {[&](HttpClient& client) { response = client.send_patiently({.url = url}); }}, goes_on);
  const std::string what = fmt::format("search for \"{}\"", words);
  if (response.status != 200) fail_status(response, what, settings);
  const Json answer = formats::parse_json(response.body, what);
  if (!answer.is_array())
    fail(ErrorCode::kInvalidInput, "{}: the answer of {} is no list; is HF_ENDPOINT right?", what, settings.endpoint);
  std::vector<FoundModel> found;
  for (const Json& entry : answer) {
    FoundModel m;
    m.name = text_at(entry, "id");
    if (static_cast<int64_t>(found.size()) == limit || m.name.find('/') == std::string::npos || !is_safe_path(m.name))
      continue;
    m.task = text_at(entry, "pipeline_tag");
    m.downloads = count_at(entry, "downloads");
    m.likes = count_at(entry, "likes");
    const Json* gated = member(entry, "gated");
    m.is_gated = gated && !(gated->is_boolean() && !gated->get<bool>());
    m.size = size_of(entry, m.name);
    found.push_back(std::move(m));
  }
  return found;
}

}  // namespace pmetal::hub
