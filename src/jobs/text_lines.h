// JSON lines in, JSON lines out, in order, one answer a line: what the `text` commands share.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/threads.h"
#include "jobs/context.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::jobs {

// Reads the job's input line by line and writes what `answer` makes of each (without its newline). Lines that are
// waiting already are answered together on the pool; a line that comes alone is answered at once. `number` is the
// line's number from 1.
void answer_lines(const JobContext& job, ThreadPool& pool,
                  const std::function<std::string(const std::string& line, int64_t number)>& answer);

// a folder, tokenizer.json, SentencePiece model, or a name of the hub
std::unique_ptr<text::Tokenizer> open_tokenizer(const JobContext& job, const std::string& name);

}  // namespace pmetal::jobs
