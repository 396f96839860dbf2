// tokenizer_lines TOKENIZER: reads one JSON object {"text", "pair"?, "special"?} a line, writes {"ids", "type_ids",
// "mask", "special", "offsets", "decode", "decode_skip"}, or {"error"} where a text cannot be encoded.
// The other half of tools/oracle/tokenizers/compare.mjs.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer/tokenizer.h"

int main(int argc, char** argv) {
  using nlohmann::json;
  if (argc != 2) {
    fmt::print(stderr, "usage: tokenizer_lines TOKENIZER < LINES\n");
    return 2;
  }
  try {
    const auto tokenizer = pmetal::text::Tokenizer::from_file(argv[1]);
    pmetal::text::EncodeOptions options;
    options.with_offsets = true;
    std::ios::sync_with_stdio(false);
    for (std::string line; std::getline(std::cin, line);) {
      const json question = json::parse(line);
      const auto text = question["text"].get<std::string>(), pair = question.value("pair", "");
      options.pair.reset();
      if (question.contains("pair")) options.pair = pair;
      options.add_special_tokens = question.value("special", true);
      pmetal::text::Encoding e;
      try {
        e = tokenizer->encode(text, options);
      } catch (const pmetal::Error& error) {
        std::cout << json{{"error", error.what()}}.dump() << '\n';
        continue;
      }
      json offsets = json::array();
      for (const auto& o : e.offsets) offsets.push_back({o.begin, o.end});
      std::string streamed;
      pmetal::text::StreamingDecoder decoder(*tokenizer, false);
      for (int32_t id : e.ids) streamed += decoder.push(id);
      streamed += decoder.flush();
      const std::string decoded = tokenizer->decode(e.ids, false);
      if (streamed != decoded) pmetal::fail(pmetal::ErrorCode::kInvalidInput, "decoding by steps differs for {}", line);
      options.with_offsets = false;
      if (tokenizer->encode(text, options).ids != e.ids)
        pmetal::fail(pmetal::ErrorCode::kInvalidInput, "ids differ without offsets for {}", line);
      options.with_offsets = true;
      std::cout << json{{"ids", e.ids},
                        {"type_ids", e.type_ids},
                        {"mask", e.attention_mask},
                        {"special", e.special_mask},
                        {"offsets", offsets},
                        {"decode", decoded},
                        {"decode_skip", tokenizer->decode(e.ids, true)}}
                       .dump()
                << '\n';
    }
  } catch (const pmetal::Error& e) {
    fmt::print(stderr, "tokenizer_lines: {}\n", e.what());
    return 1;
  }
  return 0;
}
