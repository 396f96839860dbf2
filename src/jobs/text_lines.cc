#include "jobs/text_lines.h"

#include "jobs/hub_names.h"

#include <istream>
#include <ostream>

#include "base/error.h"
#include "base/file.h"

namespace pmetal::jobs {

void answer_lines(const JobContext& job, ThreadPool& pool,
                  const std::function<std::string(const std::string&, int64_t)>& answer) {
  constexpr size_t kBatch = 1024;  // lines answered together
  std::istream& in = job.input();
  std::vector<std::string> lines, answers;
  int64_t number = 0;
  std::string line;
  for (bool more = true; more;) {
    job.stop_if_cancelled();
    lines.clear();
    more = static_cast<bool>(std::getline(in, line));
    if (more) lines.push_back(std::move(line));
    while (more && lines.size() < kBatch && in.rdbuf()->in_avail() > 0) {
      more = static_cast<bool>(std::getline(in, line));
      if (more) lines.push_back(std::move(line));
    }
    answers.assign(lines.size(), {});
    pool.parallel_for(static_cast<int64_t>(lines.size()), 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        answers[static_cast<size_t>(i)] = answer(lines[static_cast<size_t>(i)], number + i + 1);
    });
    number += static_cast<int64_t>(lines.size());
    for (const std::string& a : answers) job.data() << a << '\n';
    job.data().flush();
  }
}

std::unique_ptr<text::Tokenizer> open_tokenizer(const JobContext& job, const std::string& name) {
  const std::string path = local_tokenizer(job, name);
  if (!fs::exists(path)) fail(ErrorCode::kNotFound, "{}: no such file or folder", path);
  return fs::is_directory(path) ? text::Tokenizer::from_dir(path) : text::Tokenizer::from_file(path);
}

}  // namespace pmetal::jobs
