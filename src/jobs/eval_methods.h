// The two methods of `pmetal eval`.
#pragma once

#include <string>

#include "infer/perplexity.h"
#include "jobs/model_session.h"
#include "jobs/specs/eval.h"
#include "jobs/text_session.h"

namespace pmetal::jobs {

struct PerplexityResult {
  infer::Likelihood likelihood;
  int64_t samples = 0;               // documents, or examples
  int64_t windows = 0, window = 0;   // of plain text; 0 for examples
  int64_t text_tokens = 0, cut = 0;  // all tokens of the text; examples that were too long
};
// Plain text: documents, each followed by the end token, laid end to end and cut into windows. Chats and pairs: each
// example by itself.
PerplexityResult eval_perplexity(const EvalOptions& options, const JobContext& job, ModelSession& session,
                                 const TextSession& text);

struct ExactMatchResult {
  int64_t samples = 0, correct = 0, generated_tokens = 0;
};
// Greedy answers to the prompts against the expected ones, many at a time.
ExactMatchResult eval_exact_match(const EvalOptions& options, const JobContext& job, ModelSession& session,
                                  const TextSession& text);

// the part of an answer that is compared
std::string answer_part(const std::string& answer, AnswerPart part);

}  // namespace pmetal::jobs
