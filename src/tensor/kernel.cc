#include "tensor/kernel.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <string>

#include "tensor/op_times.h"

namespace pmetal::detail {

bool dispatch_verbose() {
  static const bool on = [] {
    const char* text = std::getenv("PMETAL_VERBOSE");
    return text && std::strstr(text, "dispatch");
  }();
  return on;
}

bool dispatch_strict() {
  static const bool on = [] {
    const char* text = std::getenv("PMETAL_STRICT");
    return text && std::strcmp(text, "0") != 0;
  }();
  return on;
}

void print_choice(const char* op, const char* name, const char* declined) {
  static std::mutex mutex;
  static std::set<std::string> seen;  // each distinct line once
  const std::string line = declined ? fmt::format("dispatch: {}: {} declines: {}", op, name, declined)
                                    : fmt::format("dispatch: {}: {}", op, name);
  std::lock_guard lock(mutex);
  if (seen.insert(line).second) std::fprintf(stderr, "%s\n", line.c_str());
}

void no_kernel(const char* op, Device device, const char* why) {
  fail(ErrorCode::kUnsupported, "[{}] no kernel on {} takes these arguments: {}", op, to_string(device), why);
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void add_time(OpTimes& times, const char* op, const char* kernel, double since) {
  times.add(op, kernel, seconds_now() - since);
}

}  // namespace pmetal::detail
