#include "hub/settings.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "base/error.h"

namespace pmetal::hub {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

fs::path home_folder() {
  if (const std::string home = variable("HF_HOME"); !home.empty()) return home;
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) return fs::path(cache) / "huggingface";
  const std::string home = variable("HOME");
  if (home.empty())
    fail(ErrorCode::kUsage, "HOME is not set, so there is no place for downloaded models; set HF_HOME to a folder");
  return fs::path(home) / ".cache" / "huggingface";
}

std::string trimmed(std::string text) {
  const auto is_space = [](unsigned char c) { return std::isspace(c) != 0; };
  text.erase(std::find_if_not(text.rbegin(), text.rend(), is_space).base(), text.end());
  text.erase(text.begin(), std::find_if_not(text.begin(), text.end(), is_space));
  return text;
}

std::string read_token() {
  std::string token = trimmed(variable("HF_TOKEN"));
  std::string source = "HF_TOKEN";
  if (token.empty()) {
    const std::string path = variable("HF_TOKEN_PATH");
    const fs::path file = path.empty() ? home_folder() / "token" : fs::path(path);
    if (!fs::exists(file)) return "";
    token = trimmed(read_text(file));
    source = file.string();
  }
  // it becomes a header line; a line break in it would begin another
  if (!std::all_of(token.begin(), token.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; }))
    fail(ErrorCode::kUsage, "{}: an access token is one word of ASCII letters and digits", source);
  return token;
}

}  // namespace

Settings settings_from_environment() {
  Settings s;
  if (std::string endpoint = trimmed(variable("HF_ENDPOINT")); !endpoint.empty()) {
    while (endpoint.ends_with('/')) endpoint.pop_back();
    if (!endpoint.starts_with("https://") && !endpoint.starts_with("http://"))
      fail(ErrorCode::kUsage, "HF_ENDPOINT is \"{}\"; it must begin with https:// or http://", endpoint);
    s.endpoint = endpoint;
  }
  const std::string cache = variable("HF_HUB_CACHE");
  s.cache = cache.empty() ? home_folder() / "hub" : fs::path(cache);
  std::string offline = variable("HF_HUB_OFFLINE");
  std::transform(offline.begin(), offline.end(), offline.begin(), [](unsigned char c) { return std::tolower(c); });
  s.offline = offline == "1" || offline == "true" || offline == "yes" || offline == "on";
  s.token = read_token();
  return s;
}

}  // namespace pmetal::hub
