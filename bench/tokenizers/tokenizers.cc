// bench_tokenizers TOKENIZER TEXT [ROUNDS]: encodes the text file on one thread, once whole and once line by line, and
// prints the best rate of each in MB/s. bench/tokenizers/run.sh runs it beside the official library.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer/bpe_trainer.h"
#include "text/tokenizer/tokenizer.h"

namespace {

template <class F>
double best_seconds(int rounds, F f) {
  double best = 1e30;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace pmetal;
  if (argc < 3) {
    fmt::print(stderr, "usage: bench_tokenizers TOKENIZER TEXT [ROUNDS]\n");
    return 2;
  }
  try {
    const auto tokenizer = text::Tokenizer::from_file(argv[1]);
    const std::string whole = read_text(argv[2]);
    const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
    std::vector<std::string_view> lines;
    for (size_t at = 0; at < whole.size();) {
      const size_t end = std::min(whole.find('\n', at), whole.size());
      lines.push_back(std::string_view(whole).substr(at, end - at));
      at = end + 1;
    }
    const double mb = static_cast<double>(whole.size()) / 1e6;
    size_t n_ids = 0;
    const auto report = [&](const char* name, double seconds) {
      fmt::print("ours      {:<22} {:8.2f} MB/s  {} tokens\n", name, mb / seconds, n_ids);
    };
    report("whole, ids", best_seconds(rounds, [&] { n_ids = tokenizer->encode_ids(whole).size(); }));
    text::EncodeOptions with_offsets;
    with_offsets.with_offsets = true;
    report("whole, offsets", best_seconds(rounds, [&] { n_ids = tokenizer->encode(whole, with_offsets).ids.size(); }));
    report("lines, ids", best_seconds(rounds, [&] {
             n_ids = 0;
             for (const auto line : lines) n_ids += tokenizer->encode_ids(line).size();
           }));
    report("lines, offsets", best_seconds(rounds, [&] {
             n_ids = 0;
             for (const auto line : lines) n_ids += tokenizer->encode(line, with_offsets).ids.size();
           }));
    const auto ids = tokenizer->encode_ids(whole);
    report("decode", best_seconds(rounds, [&] { n_ids = tokenizer->decode(ids).size(); }));
    report("train 4096", best_seconds(1, [&] {
             text::BpeTrainer trainer({.vocab_size = 4096, .special_tokens = {"<|end|>"}, .min_frequency = 2});
             trainer.add(whole);
             n_ids = trainer.finish().size();
           }));
    for (const auto& [name, adversary] : {std::pair<const char*, std::string>{"1e6 spaces", std::string(1000000, ' ')},
                                          {"1e6 times a", std::string(1000000, 'a')}})
      fmt::print("ours      {:<22} {:8.1f} ms\n", name,
                 1e3 * best_seconds(rounds, [&] { n_ids = tokenizer->encode_ids(adversary).size(); }));
  } catch (const Error& e) {
    fmt::print(stderr, "bench_tokenizers: {}\n", e.what());
    return 1;
  }
  return 0;
}
