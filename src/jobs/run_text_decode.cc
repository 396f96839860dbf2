// pmetal text decode: JSON lines {"ids"} to {"text"}.
#include <nlohmann/json.hpp>

#include "formats/json.h"
#include "formats/json_reader.h"
#include "jobs/spec.h"
#include "jobs/specs/text_decode.h"
#include "jobs/text_lines.h"

namespace pmetal::jobs {

void run_text_decode(const JobOptions& options, JobContext& job) {
  const auto& o = options.as<TextDecodeOptions>();
  const auto tokenizer = open_tokenizer(job, o.tokenizer);
  ThreadPool pool(0);
  answer_lines(job, pool, [&](const std::string& line, int64_t number) {
    const std::string where = fmt::format("input line {}", number);
    const Json value = formats::parse_json(line, where);
    std::vector<int32_t> ids;
    for (int64_t id : formats::JsonReader(value, where).integers("ids")) {
      if (id < 0 || id >= tokenizer->vocab_size())
        fail(ErrorCode::kInvalidInput, "{}: field \"ids\": {} is outside the vocabulary of {}", where, id,
             tokenizer->vocab_size());
      ids.push_back(static_cast<int32_t>(id));
    }
    Json out;
    out["text"] = tokenizer->decode(ids, o.skip_special);
    return formats::dump_json(out, -1);
  });
}

}  // namespace pmetal::jobs
