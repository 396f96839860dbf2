// pmetal text encode: JSON lines {"text", "pair"?} to {"ids", "offsets"?}.
#include <nlohmann/json.hpp>

#include "formats/json.h"
#include "formats/json_reader.h"
#include "jobs/spec.h"
#include "jobs/specs/text_encode.h"
#include "jobs/text_lines.h"

namespace pmetal::jobs {

void run_text_encode(const JobOptions& options, JobContext& job) {
  const auto& o = options.as<TextEncodeOptions>();
  const auto tokenizer = open_tokenizer(job, o.tokenizer);
  ThreadPool pool(static_cast<int>(o.threads));
  answer_lines(job, pool, [&](const std::string& line, int64_t number) {
    const std::string where = fmt::format("input line {}", number);
    const Json value = formats::parse_json(line, where);
    const formats::JsonReader json(value, where);
    const std::string text = json.string("text");
    const std::optional<std::string> pair = json.maybe_string("pair");
    text::EncodeOptions encode;
    encode.add_special_tokens = !o.no_special;
    encode.with_offsets = o.offsets;
    if (pair) encode.pair = *pair;
    const text::Encoding e = tokenizer->encode(text, encode);
    Json out;
    out["ids"] = e.ids;
    if (o.offsets) {
      out["offsets"] = Json::array();
      for (const text::Offset& span : e.offsets) out["offsets"].push_back({span.begin, span.end});
    }
    return out.dump();
  });
}

}  // namespace pmetal::jobs
