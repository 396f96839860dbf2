// How the hub is reached and where its files are kept, as Hugging Face's own tools are told it by the environment:
//   HF_ENDPOINT                        the server, default https://huggingface.co
//   HF_HUB_CACHE, else HF_HOME/hub     the cache, default ~/.cache/huggingface/hub (XDG_CACHE_HOME counts)
//   HF_TOKEN, else HF_TOKEN_PATH, else HF_HOME/token   who asks
//   HF_HUB_OFFLINE                     1, true, yes or on: nothing is asked of the network
#pragma once

#include <cstdint>
#include <string>

#include "base/file.h"

namespace pmetal::hub {

struct Settings {
  std::string endpoint = "https://huggingface.co";  // without a slash at the end
  fs::path cache;
  std::string token;  // empty: anonymous. Sent to the endpoint's own scheme, host and port only
  bool offline = false;
  int connections = 8;                      // at once, over all files
  int64_t piece_bytes = int64_t{32} << 20;  // one ranged request
  int attempts = 5;                         // without a byte of progress in between
  int retry_delay_ms = 500;                 // doubled with each attempt
  int stall_timeout_s = 30;                 // a transfer that brings nothing for so long is cut
};

// Error(kUsage) for a variable that cannot be meant
Settings settings_from_environment();

}  // namespace pmetal::hub
