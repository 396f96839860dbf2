// What a running job may use of the outside: where its events go, where its data goes, whether it shall stop.
// Jobs never print: people read the events, programs read `data()`.
#pragma once

#include <atomic>
#include <iosfwd>
#include <string>

#include <fmt/format.h>

#include "jobs/events.h"

namespace pmetal::jobs {

// Ctrl-C for jobs that take it as "stop this answer" rather than "stop the job".
struct Interrupts {
  std::atomic<bool> wanted{false};   // by the job
  std::atomic<bool> pending{false};  // one came
};

struct JobIo {
  EventSink* events;                 // never null
  std::ostream* data;                // results: stdout in the command line
  std::istream* input;               // what a person types: stdin
  const std::atomic<bool>* cancel;   // set by Ctrl-C, SIGTERM, or a stop button
  Interrupts* interrupts = nullptr;  // where there are none, Ctrl-C cancels
};

class JobContext {
 public:
  JobContext(std::string job_id, JobIo io) : job_id_(std::move(job_id)), io_(io) {}

  const std::string& job_id() const { return job_id_; }
  bool json = false;     // --json: `data()` gets exactly one JSON document
  bool colour = false;   // `data()` is a terminal that shows colour
  bool dry_run = false;  // --dry-run: say what would happen, change nothing
  // the job fills this before it returns
  JobSummary summary;

  std::ostream& data() const { return *io_.data; }
  std::istream& input() const { return *io_.input; }
  EventSink& events() const { return *io_.events; }

  // the same job with its events going to `events` (borrowed)
  JobContext with_events(EventSink* events) const {
    JobContext other = *this;
    other.io_.events = events;
    return other;
  }

  bool is_cancelled() const { return io_.cancel->load(std::memory_order_relaxed); }
  // From here on Ctrl-C no longer cancels; take_interrupt() tells whether one came since it was asked last.
  void want_interrupts() const {
    if (io_.interrupts) io_.interrupts->wanted = true;
  }
  bool take_interrupt() const { return io_.interrupts && io_.interrupts->pending.exchange(false); }
  // throws Error(kCancelled): the caller has nothing to save
  void stop_if_cancelled() const;

  template <class Body>
  void emit(Body body) const {
    io_.events->emit({job_id_, unix_seconds(), std::move(body)});
  }
  void phase(std::string name, std::string detail = {}) const { emit(PhaseEvent{std::move(name), std::move(detail)}); }
  void progress(std::string label, int64_t current, std::optional<int64_t> total) const {
    emit(ProgressEvent{current, total, std::move(label)});
  }
  void artefact(std::string path, std::string role) const { emit(ArtefactEvent{std::move(path), std::move(role)}); }
  template <class... Args>
  void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) const {
    emit(LogEvent{level, fmt::format(format, std::forward<Args>(args)...)});
  }

  static int64_t unix_seconds();

 private:
  std::string job_id_;
  JobIo io_;
};

std::string new_job_id();  // time and process, e.g. "20260102-030405-1234"

}  // namespace pmetal::jobs
