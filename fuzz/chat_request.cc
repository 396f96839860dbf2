// A request line → rendered text with every built-in family, then that text as the output of every answer parser.
// Properties: an answer is always one JSON object; masks are inside the text and in order; parsers give the same
// however the text is cut, and arguments that parse.
#include "base/error.h"
#include "text/chat/chat.h"
#include "text/chat/output_parser.h"
#include "text/chat/render_lines.h"
#include "text/template/json.h"
#include "text/template/unicode.h"

namespace {

using namespace pmetal::text;

const std::vector<chat::ChatTemplate>& templates() {
  static const std::vector<chat::ChatTemplate> all = [] {
    std::vector<chat::ChatTemplate> out;
    for (const chat::Family* family : chat::all_families()) out.push_back(chat::ChatTemplate::built_in(family->name));
    return out;
  }();
  return all;
}

void check_training(const chat::ChatTemplate& t, const jinja::Value& messages) {
  try {
    const chat::Trained trained = t.render_for_training(messages, {}, chat::TrainOn::kAll);
    size_t end = 0;
    for (const chat::Span& span : trained.spans) {
      PMETAL_ASSERT(span.begin >= end && span.begin < span.end && span.end <= trained.text.size(), "{} to {} of {}",
                    span.begin, span.end, trained.text.size());
      end = span.end;
    }
  } catch (const pmetal::Error&) {
  }
}

chat::ParsedOutput parsed(const chat::ParserSpec& spec, const jinja::Value& tools, std::string_view text, size_t cut) {
  const auto parser = chat::make_parser(spec, {.tools = tools});
  std::vector<chat::OutputEvent> events;
  parser->feed(text.substr(0, cut), events);
  parser->feed(text.substr(cut), events);
  parser->finish(events);
  return chat::collect(events);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  const size_t pick = size == 0 ? 0 : data[size - 1];
  const chat::ChatTemplate& t = templates()[pick % templates().size()];
  const jinja::Value answer = jinja::parse_json(chat::render_line(t, line));
  const bool is_text = answer.dict().find("text") != nullptr;
  PMETAL_ASSERT(is_text != (answer.dict().find("error") != nullptr), "text or error");
  try {
    const jinja::Value request = jinja::parse_json(line);
    if (request.is(jinja::Kind::kDict))
      if (const jinja::Value* messages = request.dict().find("messages")) check_training(t, *messages);
  } catch (const pmetal::Error&) {
  }
  static const jinja::Value tools = jinja::parse_json(R"([{"function": {"name": "f", "parameters": {"properties": {
      "a": {"type": "string"}, "b": {"type": "integer"}}}}}])");
  if (!jinja::unicode::is_valid(line)) return 0;  // parsers come after the streaming decoder, which repairs bytes
  for (const chat::ParserSpec* spec : chat::all_parsers()) {
    const chat::ParsedOutput whole = parsed(*spec, tools, line, size);
    PMETAL_ASSERT(parsed(*spec, tools, line, pick % (size + 1)) == whole, "{}: cut at {}", spec->name,
                  pick % (size + 1));
    for (const chat::ParsedCall& call : whole.calls) (void)jinja::parse_json(call.arguments);
  }
  return 0;
}
