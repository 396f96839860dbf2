#include "jobs/context.h"

#include <unistd.h>

#include <chrono>
#include <ctime>

#include <fmt/chrono.h>

#include "base/error.h"

namespace pmetal::jobs {

void JobContext::stop_if_cancelled() const {
  if (is_cancelled()) fail(ErrorCode::kCancelled, "stopped on request");
}

int64_t JobContext::unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string new_job_id() { return fmt::format("{:%Y%m%d-%H%M%S}-{}", fmt::gmtime(std::time(nullptr)), ::getpid()); }

}  // namespace pmetal::jobs
