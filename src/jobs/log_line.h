// Events as lines of a log: what the log file of a front end and training.log of a run say.
#pragma once

#include <string>

#include "jobs/events.h"

namespace pmetal::jobs {

struct LogLine {
  LogLevel level;
  std::string text;  // without the line end; empty: the event belongs in no log
};
LogLine log_line(const JobEvent& event);
std::string log_time(int64_t unix_seconds);  // 2026-01-02T03:04:05Z

}  // namespace pmetal::jobs
