// Time to render a conversation of 20 turns with each template of a folder, parsing apart from rendering.
//   bench_templates [tests/data/templates]
// prints per template the median of 200 renderings in microseconds; the goal is below 1000.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "text/chat/chat.h"
#include "text/template/json.h"

namespace {

using namespace pmetal::text;

jinja::Value conversation() {
  std::string json = R"([{"role": "system", "content": "You are a helpful assistant."})";
  for (int i = 0; i < 10; ++i)
    json += fmt::format(
        R"(, {{"role": "user", "content": "Question {0}: what follows from the text of chapter {0}, and why does )"
        R"(the author say so twice?"}}, {{"role": "assistant", "content": "Answer {0}. It follows that the second part )"
        R"(was written first.\n\n1. The names agree.\n2. The dates do not.\n\nSee also chapter {0}."}})",
        i);
  return jinja::parse_json(json + "]");
}

double microseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const std::filesystem::path folder = argc > 1 ? argv[1] : "tests/data/templates";
  const jinja::Value messages = conversation();
  jinja::Value tokens = jinja::parse_json(R"({"bos_token": "<s>", "eos_token": "</s>"})");
  chat::ChatOptions options{.add_generation_prompt = true};
  options.now = chat::DateTime{2026, 3, 4, 5, 6, 7, 0};
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".jinja") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  double worst = 0;
  fmt::print("{:<48} {:>10} {:>10} {:>10}\n", "template", "parse us", "render us", "bytes");
  for (const auto& file : files) {
    const std::string source = pmetal::read_text(file);
    std::vector<double> parse, render;
    size_t bytes = 0;
    try {
      for (int i = 0; i < 200; ++i) {
        auto start = std::chrono::steady_clock::now();
        const auto t = chat::ChatTemplate::from_source(source, file.stem(), tokens);
        parse.push_back(microseconds_since(start));
        start = std::chrono::steady_clock::now();
        bytes = t.render(messages, options).text.size();
        render.push_back(microseconds_since(start));
      }
    } catch (const pmetal::Error&) {
      fmt::print("{:<48} refuses this conversation\n", file.stem().string());
      continue;
    }
    worst = std::max(worst, median(render));
    fmt::print("{:<48} {:>10.1f} {:>10.1f} {:>10}\n", file.stem().string(), median(parse), median(render), bytes);
  }
  fmt::print("slowest: {:.1f} us of 1000 us\n", worst);
  return worst < 1000 ? 0 : 1;
}
