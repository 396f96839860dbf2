// `pmetal infer --benchmark` and --profile-layers: timings instead of an answer.
#pragma once

#include "jobs/model_session.h"
#include "jobs/specs/infer.h"

namespace pmetal::jobs {

void run_infer_benchmark(const InferOptions& options, JobContext& job, ModelSession& session);
// the table to `data()` (under --json only to --profile-output)
void show_layer_profile(const InferOptions& options, const JobContext& job, ModelSession& session,
                        std::span<const int32_t> prompt);

}  // namespace pmetal::jobs
