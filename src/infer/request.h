// What the engine is asked, and what it answers while it works.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "infer/sampler.h"

namespace pmetal::infer {

struct Request {
  std::vector<int32_t> prompt;  // not empty
  SamplingParams sampling = {};
  int32_t adapter = -2;                    // as in nn::Batch
  std::optional<int64_t> max_tokens = {};  // nothing: to the end of the context
  std::vector<int32_t> stop_ids = {};      // beside the engine's own
  std::vector<std::string> stop = {};      // texts that end the answer; cut off with what follows
  bool detect_repetition = false;          // end a text that goes round in circles
  bool skip_special = true;                // special tokens give no text
  int32_t n = 1;                           // answers; the prompt runs once
};

struct Finish {
  enum class Reason : uint8_t {
    kStop,    // end token, stop id, stop string, or a loop
    kLength,  // max_tokens, or the context is full
    kError,   // `message` says why
  };
  Reason reason = Reason::kStop;
  std::optional<int32_t> stop_id = {};
  std::optional<size_t> stop_string = {};  // index in Request::stop
  bool is_repetition = false;
  std::string message = {};
};

// One step's news of one answer. Text is empty while characters or possible stop strings are incomplete, and always
// when the engine has no tokenizer.
struct Update {
  int32_t choice = 0;
  std::string text = {};
  std::optional<Sampled> token = {};  // nothing when drawing it failed
  std::optional<Finish> finish = {};  // in the last update of a choice
};
// Called from within Engine::step(); must not throw.
using Listener = std::function<void(const Update&)>;

}  // namespace pmetal::infer
