#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace pmetal::detail {

void assertion_failed(const char* expression, const char* file, int line, const std::string& values) {
  std::fprintf(stderr, "pmetal: internal error: %s is false at %s:%d%s%s\n", expression, file, line,
               values.empty() ? "" : ": ", values.c_str());
  std::abort();
}

}  // namespace pmetal::detail
