// The output folder of a training run beside what the run saves:
//   .running       the process's number, locked while the run lives: a second run into the folder is refused
//   training.log   the run's events as lines for people, appended over resumes; every `logging_steps`-th step
//   error.log      why the last run failed; gone when a new one starts
#pragma once

#include <filesystem>
#include <functional>

#include "jobs/context.h"

namespace pmetal::jobs {

// Runs `body` with a context whose events go to training.log as well. Errors pass through. Throws Error(kIo) when the
// folder cannot be written, Error(kUsage) when another process is training into it.
void in_run_folder(const std::filesystem::path& output, int64_t logging_steps, JobContext& job,
                   const std::function<void(JobContext&)>& body);

// A run that starts anew keeps the checkpoints of the one before it: moves <output>/checkpoints to checkpoints.before,
// which the next such start replaces, and says so.
void set_checkpoints_aside(const std::filesystem::path& output, const JobContext& job);

}  // namespace pmetal::jobs
