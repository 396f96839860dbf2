// From a record to token ids and labels. Labels stand beside their token (labels[t] = ids[t] or kIgnore); the shift by
// one is the loss's affair. Chats are rendered by the same template as in inference and encoded once as a whole; a
// token is learned when it overlaps a learned span of the text. Formats without a template get the end token appended.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/record.h"

namespace pmetal::data {

inline constexpr int32_t kIgnore = -100;

struct Span {
  int64_t begin = 0, end = 0;  // bytes of the text, half open
};

// What this folder needs of a tokenizer. The functions may be called from several threads at once.
struct EncodedText {
  std::vector<int32_t> ids;
  std::vector<Span> offsets;  // bytes of the text behind each id; empty spans for added special tokens
};
struct Encoder {
  std::function<EncodedText(std::string_view text, bool add_special)> encode;
  std::function<std::vector<int32_t>(std::string_view text, bool add_special)> encode_ids;  // may be empty; faster
  std::optional<int32_t> eos_id;
};

// What this folder needs of a chat template: the text and what each assistant turn wrote of it, its end-of-turn
// token included.
struct RenderedChat {
  struct Turn {
    int64_t message = 0;  // index into the messages
    Span span;
  };
  std::string text;
  std::vector<Turn> assistant;
};
using RenderChat = std::function<RenderedChat(const std::string& messages_json, const std::string& tools_json)>;

enum class TrainOn : uint8_t { kAll, kLast, kEverything };  // --train-on: assistant turns, the last one, every token
enum class Truncation : uint8_t { kRight, kLeft, kDrop };   // which end goes when a sample is too long

struct ExampleOptions {
  TrainOn train_on = TrainOn::kAll;
  int64_t max_length = 0;  // tokens; 0 = no limit
  Truncation truncation = Truncation::kRight;
  bool append_eos = true;  // formats without a template
};

struct Example {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;  // as long as ids
  int64_t length() const { return static_cast<int64_t>(ids.size()); }
  int64_t n_learned() const;  // labels at positions 1.. that are not ignored: what the loss counts
};

struct PreferenceExample {
  Example chosen, rejected;  // prompt + completion, the prompt ignored
};

// How many samples went which way; shown at the start of training and by `dataset validate`.
struct ExampleCounts {
  std::atomic<int64_t> built{0}, truncated{0}, dropped_nothing_learned{0}, dropped_too_long{0}, truncated_tokens{0};
};

class ExampleBuilder {
 public:
  // `render` may be empty for a model without a template: chats are then an error, except two-turn formats, which
  // become plain text (prompt, newline, answer).
  ExampleBuilder(Encoder encoder, RenderChat render, ExampleOptions options);

  // Nothing when the sample is dropped (counted). Thread-safe.
  std::optional<Example> build(const Record& record) const;
  std::optional<PreferenceExample> build_preference(const Record& record) const;
  // the text and its learned spans, before tokenising: for `dataset preview`
  struct Rendered {
    std::string text;
    std::vector<Span> learned;
    bool is_chat = false;
  };
  Rendered render(const Record& record) const;
  int64_t length_of(const Record& record) const;  // tokens before any limit; of a preference, its longer side
  ExampleBuilder with(const ExampleOptions& options) const { return {encoder_, render_chat_, options}; }
  const ExampleCounts& counts() const { return counts_; }
  const ExampleOptions& options() const { return options_; }
  const Encoder& encoder() const { return encoder_; }

 private:
  Rendered render_chat(const std::string& messages, const std::string& tools, int64_t prompt_messages,
                       const std::string& where) const;
  Example encode(const Rendered& rendered) const;
  std::optional<Example> finish(Example example) const;
  Encoder encoder_;
  RenderChat render_chat_;
  ExampleOptions options_;
  mutable ExampleCounts counts_;
};

}  // namespace pmetal::data
