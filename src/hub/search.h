// Models of the hub that match some words, with what is needed to estimate their memory.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hub/fit.h"
#include "hub/http.h"

namespace pmetal::hub {

struct FoundModel {
  std::string name;
  std::string task;  // "text-generation"; empty: not said
  int64_t downloads = 0, likes = 0;
  bool is_gated = false;          // its terms must be accepted first
  std::optional<ModelSize> size;  // nothing: neither its weights nor its name say
};

// The most downloaded first. `goes_on` is asked several times a second; false ends the search with Error(kCancelled).
// Error(kNotFound) when offline; else as HttpClient::send_patiently and fail_status.
std::vector<FoundModel> search_models(const Settings& settings, const std::string& words, int64_t limit,
                                      const std::function<bool()>& goes_on);

// "Qwen3-30B-A3B-4bit": 30.0 of which 3.0 are active, in 4 bits; nothing when the name has no number of parameters
std::optional<ModelSize> size_from_name(const std::string& name);

}  // namespace pmetal::hub
