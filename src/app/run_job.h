// Runs one command for any face: emits started, then completed, failed or cancelled, and turns exceptions into an
// outcome.
#pragma once

#include <string>

#include "base/error.h"
#include "jobs/context.h"
#include "jobs/spec.h"

namespace pmetal::app {

struct Outcome {
  enum Kind { kDone, kFailed, kCancelled } kind = kDone;
  ErrorCode code = ErrorCode::kIo;  // when failed
  std::string message;
};

Outcome run_job(const jobs::Command& command, const jobs::JobOptions& options, jobs::JobContext& context);

}  // namespace pmetal::app
