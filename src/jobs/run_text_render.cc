// pmetal text render: conversations, one JSON object a line, to {"text"} or {"error"}.
#include <functional>

#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/text_render.h"
#include "jobs/text_lines.h"
#include "text/chat/render_lines.h"

namespace pmetal::jobs {

void run_text_render(const JobOptions& options, JobContext& job) {
  const auto& o = options.as<TextRenderOptions>();
  ThreadPool pool(0);
  std::function<std::string(const std::string&)> answer;
  try {
    answer = [chat = o.model ? text::chat::ChatTemplate::from_model_dir(local_tokenizer(job, *o.model))
                             : text::chat::ChatTemplate::from_file(*o.template_file)](const std::string& line) {
      return text::chat::render_line(chat, line);
    };
  } catch (const text::jinja::TemplateError& e) {  // as much an answer as what a template raises while it renders
    job.log(LogLevel::kWarn, "{}", e.what());
    answer = [error = e](const std::string&) { return text::chat::error_line(error); };
  }
  answer_lines(job, pool, [&](const std::string& line, int64_t) { return answer(line); });
}

}  // namespace pmetal::jobs
