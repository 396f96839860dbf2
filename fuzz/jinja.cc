// A template and its variables, both hostile: "<JSON object>\0<template>", or only a template. Properties: parsing and
// rendering end within their budgets, with text or Error; the same input gives the same text twice.
#include "base/error.h"
#include "text/template/json.h"
#include "text/template/template.h"

namespace {

namespace jinja = pmetal::text::jinja;

constexpr const char* kContext =
    R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u é"}, {"role": "assistant",
        "content": [{"type": "text", "text": "a"}], "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}],
        "tools": [{"function": {"name": "f"}}], "bos_token": "<s>", "add_generation_prompt": true, "n": -3, "x": 2.5})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t border = input.find('\0');
  try {
    const jinja::Value context = jinja::parse_json(border == input.npos ? kContext : input.substr(0, border));
    if (!context.is(jinja::Kind::kDict)) return 0;
    const auto parsed = jinja::Template::parse(border == input.npos ? input : input.substr(border + 1));
    const jinja::RenderOptions options{
        .now = {2026, 3, 4, 5, 6, 7, 8},
        .limits = {.steps = 200'000, .output_bytes = 1 << 20, .scratch_bytes = 16 << 20, .range = 10'000}};
    const auto first = parsed.render(context, options), second = parsed.render(context, options);
    PMETAL_ASSERT(first.text == second.text, "two renderings differ");
    for (const jinja::Span& span : first.generation)
      PMETAL_ASSERT(span.begin <= span.end, "span {} to {}", span.begin, span.end);
  } catch (const pmetal::Error&) {
  }
  return 0;
}
