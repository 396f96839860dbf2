// The log of a front end: one file in the user's cache folder, the previous run's kept as .log.1.
#pragma once

#include <fstream>
#include <string>

#include "jobs/events.h"

namespace pmetal::app {

// PMETAL_LOG: trace, debug, info, warn, error or off. Throws Error(kUsage) on another word. Default info.
jobs::LogLevel log_level();

// Writes started, phase, log, artefact and end events as text lines. Without a place to write (no home folder,
// read-only) there is no log file; a file named by PMETAL_LOG_FILE that cannot be written throws Error(kIo).
class LogFileSink : public jobs::EventSink {
 public:
  LogFileSink(const std::string& front_end, jobs::LogLevel level);
  void emit(const jobs::JobEvent& event) override;
  const std::string& path() const { return path_; }  // empty when there is none

 private:
  jobs::LogLevel level_;
  std::string path_;
  std::ofstream file_;
};

}  // namespace pmetal::app
