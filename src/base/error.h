// Errors that a user can cause (a file, a flag, a request, the network, the disk, memory) are thrown as
// pmetal::Error with a code and a text that says what failed, on which object, with which values, and what
// to do next. Only app/ and serve/ catch it. What only we can cause is checked with PMETAL_ASSERT.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace pmetal {

enum class ErrorCode {
  kUsage,         // the command line or a job description is wrong: exit code 2
  kInvalidInput,  // a file or a request does not hold what it must
  kNotFound,      // a file, model, tensor or name is absent
  kIo,            // reading or writing failed
  kOutOfMemory,   // host or device memory
  kUnsupported,   // valid, but this build or version cannot do it
  kCancelled,     // stopped on request
  kNumerical,     // NaN or infinity where none may be
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// throws Error with a message formatted as by fmt::format
template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line, const std::string& values);
}

}  // namespace pmetal

// Broken invariant of our own: prints expression, place and values, then aborts. Stays on in release builds.
#define PMETAL_ASSERT(expression, ...)                                                                    \
  do {                                                                                                    \
    if (!(expression)) [[unlikely]]                                                                       \
      ::pmetal::detail::assertion_failed(#expression, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__)); \
  } while (0)
