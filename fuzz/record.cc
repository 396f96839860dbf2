// A row of a dataset from anywhere → record → the text it is trained on, in ChatML, and its content. The first byte
// chooses column flags. Properties: spans lie inside the text and in order; a chat's messages are JSON; errors are
// Error.
#include "data/record.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/tools/tools.h"

namespace {

using namespace pmetal;

data::ColumnFlags flags_of(uint8_t choice) {
  switch (choice) {
    case '1': return {.text_column = "text"};
    case '2': return {.text_columns = {"a", "b"}};
    case '3': return {.prompt_column = "prompt", .response_column = "response"};
    case '4': return {.prompt_column = "a"};
    default: return {};
  }
}

const data::ExampleBuilder& builder() {
  static const data::ExampleBuilder chatml({},
                                           data::make_chat_renderer(std::make_shared<text::chat::ChatTemplate>(
                                               text::chat::ChatTemplate::built_in("chatml"))),
                                           {});
  return chatml;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  data::RecordParser parser(flags_of(data[0]));
  data::Row row;
  row.json.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    parser.columns(row);
    const data::Record record = parser.parse(row);
    data::content_of(record);
    PMETAL_ASSERT(!record.is_chat() || nlohmann::json::accept(record.messages), "{}", record.messages);
    PMETAL_ASSERT(record.tools.empty() || nlohmann::json::accept(record.tools), "{}", record.tools);
    if (record.format == data::RecordFormat::kPreference || record.format == data::RecordFormat::kTokens) return 0;
    const auto rendered = builder().render(record);
    int64_t end = 0;
    for (const data::Span& s : rendered.learned) {
      PMETAL_ASSERT(s.begin >= end && s.end >= s.begin && s.end <= static_cast<int64_t>(rendered.text.size()), "{}-{}",
                    s.begin, s.end);
      end = s.end;
    }
  } catch (const Error&) {
  }
  return 0;
}
