#include "data/example.h"

#include <algorithm>

#include "base/error.h"

namespace pmetal::data {
namespace {

// labels of the tokens that overlap a span; both lists are in order
void label_spans(const EncodedText& encoded, const std::vector<Span>& spans, std::vector<int32_t>& labels) {
  labels.assign(encoded.ids.size(), kIgnore);
  size_t s = 0;
  for (size_t t = 0; t < encoded.ids.size(); ++t) {
    const Span& token = encoded.offsets[t];
    if (token.begin >= token.end) continue;
    while (s < spans.size() && spans[s].end <= token.begin) ++s;
    if (s == spans.size()) break;
    if (token.end > spans[s].begin) labels[t] = encoded.ids[t];
  }
}

}  // namespace

int64_t Example::n_learned() const {
  return labels.empty() ? 0 : std::count_if(labels.begin() + 1, labels.end(), [](int32_t l) { return l != kIgnore; });
}

ExampleBuilder::ExampleBuilder(Encoder encoder, RenderChat render, ExampleOptions options)
    : encoder_(std::move(encoder)), render_chat_(std::move(render)), options_(options) {
  if (options_.append_eos && !encoder_.eos_id) options_.append_eos = false;
}

ExampleBuilder::Rendered ExampleBuilder::render_chat(const std::string& messages, const std::string& tools,
                                                     int64_t prompt_messages, const std::string& where) const {
  if (!render_chat_)
    fail(
        ErrorCode::kInvalidInput,
        "{}: the record is a chat but the model has no chat template; name one, or use a text or prompt/completion set",
        where);
  RenderedChat chat;
  try {
    chat = render_chat_(messages, tools);
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", where, e.what());
  }
  Rendered out{std::move(chat.text), {}, true};
  if (options_.train_on == TrainOn::kEverything) {
    out.learned = {{0, static_cast<int64_t>(out.text.size())}};
    return out;
  }
  std::erase_if(chat.assistant, [&](const RenderedChat::Turn& t) { return t.message < prompt_messages; });
  const int64_t last = chat.assistant.empty() ? 0 : chat.assistant.back().message;
  for (const auto& turn : chat.assistant)
    if (options_.train_on == TrainOn::kAll || turn.message == last) out.learned.push_back(turn.span);
  return out;
}

ExampleBuilder::Rendered ExampleBuilder::render(const Record& record) const {
  if (record.format == RecordFormat::kPreference || record.format == RecordFormat::kTokens)
    fail(ErrorCode::kInvalidInput, "{}: a {} record where text or a chat is needed{}", record.where,
         name_of(record.format),
         record.format == RecordFormat::kPreference ? "; train it with --method dpo, orpo, simpo or kto" : "");
  if (record.format == RecordFormat::kText)
    return {record.text, {{0, static_cast<int64_t>(record.text.size())}}, false};
  const bool has_plain_form = !record.completion.empty() || !record.prompt.empty();
  if (record.is_chat() && (render_chat_ || !has_plain_form))
    return render_chat(record.messages, record.tools, record.prompt_messages, record.where);
  // a plain pair; two-turn chats without a template are set apart by a line end
  std::string text = record.prompt + (record.is_chat() ? "\n" : "");
  const auto begin = options_.train_on == TrainOn::kEverything ? 0 : static_cast<int64_t>(text.size());
  text += record.completion;
  return {text, {{begin, static_cast<int64_t>(text.size())}}, false};
}

Example ExampleBuilder::encode(const Rendered& rendered) const {
  EncodedText encoded = encoder_.encode(rendered.text, !rendered.is_chat);
  PMETAL_ASSERT(encoded.ids.size() == encoded.offsets.size(), "{} ids, {} offsets", encoded.ids.size(),
                encoded.offsets.size());
  Example example;
  label_spans(encoded, rendered.learned, example.labels);
  example.ids = std::move(encoded.ids);
  if (!rendered.is_chat && options_.append_eos && (example.ids.empty() || example.ids.back() != *encoder_.eos_id)) {
    example.ids.push_back(*encoder_.eos_id);
    example.labels.push_back(*encoder_.eos_id);
  } else if (!rendered.is_chat && options_.append_eos) {
    example.labels.back() = *encoder_.eos_id;  // appended by the tokenizer itself
  }
  return example;
}

std::optional<Example> ExampleBuilder::finish(Example example) const {
  const int64_t limit = options_.max_length;
  if (limit > 0 && example.length() > limit) {
    if (options_.truncation == Truncation::kDrop) {
      ++counts_.dropped_too_long;
      return std::nullopt;
    }
    const int64_t excess = example.length() - limit;
    ++counts_.truncated;
    counts_.truncated_tokens += excess;
    if (options_.truncation == Truncation::kLeft) {
      example.ids.erase(example.ids.begin(), example.ids.begin() + excess);
      example.labels.erase(example.labels.begin(), example.labels.begin() + excess);
    } else {
      example.ids.resize(static_cast<size_t>(limit));
      example.labels.resize(static_cast<size_t>(limit));
    }
  }
  if (example.n_learned() == 0) {
    ++counts_.dropped_nothing_learned;
    return std::nullopt;
  }
  ++counts_.built;
  return example;
}

int64_t ExampleBuilder::length_of(const Record& record) const {
  if (record.format == RecordFormat::kTokens) return static_cast<int64_t>(record.input_ids.size());
  if (record.format != RecordFormat::kPreference) return encode(render(record)).length();
  ExampleOptions unlimited = options_;
  unlimited.max_length = 0;
  const auto pair = with(unlimited).build_preference(record);
  return pair ? std::max(pair->chosen.length(), pair->rejected.length()) : 0;
}

std::optional<Example> ExampleBuilder::build(const Record& record) const {
  if (record.format == RecordFormat::kTokens) {
    Example example{record.input_ids, record.labels.empty() ? record.input_ids : record.labels};
    return finish(std::move(example));
  }
  return finish(encode(render(record)));
}

std::optional<PreferenceExample> ExampleBuilder::build_preference(const Record& record) const {
  if (record.format != RecordFormat::kPreference)
    fail(ErrorCode::kInvalidInput, "{}: a {} record where prompt, chosen and rejected are needed", record.where,
         name_of(record.format));
  const auto side = [&](const std::string& completion) {
    if (record.is_chat()) {
      // "[a,b]" + "[c]" -> "[a,b,c]"
      std::string whole = record.messages;
      whole.back() = ',';
      whole.append(completion, 1);
      return finish(encode(render_chat(whole, record.tools, record.prompt_messages, record.where)));
    }
    Rendered rendered{record.prompt + completion, {}, false};
    rendered.learned = {{static_cast<int64_t>(record.prompt.size()), static_cast<int64_t>(rendered.text.size())}};
    return finish(encode(rendered));
  };
  auto chosen = side(record.chosen), rejected = side(record.rejected);
  if (!chosen || !rejected) return std::nullopt;
  return PreferenceExample{std::move(*chosen), std::move(*rejected)};
}

}  // namespace pmetal::data
