// pmetal text render: conversations, one JSON object a line, to {"text"} or {"error"}.
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/text_render.h"
#include "jobs/text_lines.h"
#include "text/chat/render_lines.h"

namespace pmetal::jobs {

void run_text_render(const JobOptions& options, JobContext& job) {
  const auto& o = options.as<TextRenderOptions>();
  const text::chat::ChatTemplate chat = o.model
                                            ? text::chat::ChatTemplate::from_model_dir(local_tokenizer(job, *o.model))
                                            : text::chat::ChatTemplate::from_file(*o.template_file);
  ThreadPool pool(0);
  answer_lines(job, pool, [&](const std::string& line, int64_t) { return text::chat::render_line(chat, line); });
}

}  // namespace pmetal::jobs
