#include "app/run_job.h"

#include <new>

#include "base/failure.h"

namespace pmetal::app {
namespace {

// calls f; says what went wrong
template <class F>
Outcome outcome_of(F&& f) {
  try {
    f();
    return {};
  } catch (const Error& error) {
    const bool is_cancel = error.code() == ErrorCode::kCancelled;
    return {is_cancel ? Outcome::kCancelled : Outcome::kFailed, error.code(), error.what()};
  } catch (const std::bad_alloc& error) {
    return {Outcome::kFailed, ErrorCode::kOutOfMemory, failure_text(error)};
  } catch (const std::exception& error) {
    return {Outcome::kFailed, ErrorCode::kIo, failure_text(error)};
  }
}

}  // namespace

Outcome run_job(const jobs::Command& command, const jobs::JobOptions& options, jobs::JobContext& context) {
  Outcome outcome = outcome_of([&] {
    context.emit(jobs::StartedEvent{std::string(command.spec->name)});
    jobs::require_valid(options);
    command.run(options, context);
  });
  if (outcome.kind == Outcome::kDone && context.is_cancelled())
    outcome = {Outcome::kCancelled, {}, "stopped on request"};
  const Outcome last_event = outcome_of([&] {
    switch (outcome.kind) {
      case Outcome::kDone: return context.emit(jobs::CompletedEvent{context.summary});
      case Outcome::kFailed: return context.emit(jobs::FailedEvent{outcome.message});
      case Outcome::kCancelled: return context.emit(jobs::CancelledEvent{});
    }
  });
  // a full disk under the event log is a failure of its own, unless the job has failed already
  return outcome.kind == Outcome::kDone && last_event.kind == Outcome::kFailed ? last_event : outcome;
}

}  // namespace pmetal::app
