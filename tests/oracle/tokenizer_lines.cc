// tokenizer_lines TOKENIZER: reads one JSON object {"text"} a line, writes {"ids", "offsets", "decode", "decode_skip"}.
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
      const auto text = json::parse(line)["text"].get<std::string>();
      const auto e = tokenizer->encode(text, options);
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
