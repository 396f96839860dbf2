#include "base/fault.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pmetal {
namespace {

struct Fault {
  std::string point;
  long n = 0;  // 0: none
  bool kill = false;
  std::atomic<long> passed{0};

  void set(const char* text) {
    n = 0;
    passed = 0;
    if (!text) return;
    std::string_view rest = text;
    kill = rest.ends_with(":kill");
    if (kill) rest.remove_suffix(5);
    const size_t colon = rest.find(':');
    point = rest.substr(0, colon);
    long value = colon == std::string_view::npos ? 1 : 0;
    const char* end = rest.data() + rest.size();
    const bool is_number =
        colon == std::string_view::npos || std::from_chars(rest.data() + colon + 1, end, value).ptr == end;
    if (point.empty() || !is_number || value < 1)
      fail(ErrorCode::kUsage, "PMETAL_FAULT: \"{}\" is not of the form point:n or point:n:kill with n from 1 on", text);
    n = value;
  }
};

Fault& the_fault() {
  static Fault fault;
  static const bool from_environment = (fault.set(std::getenv("PMETAL_FAULT")), true);
  (void)from_environment;
  return fault;
}

}  // namespace

bool fault_due(const char* point) {
  Fault& fault = the_fault();
  if (fault.n == 0 || fault.point != point) return false;
  if (fault.passed.fetch_add(1) + 1 != fault.n) return false;
  if (fault.kill) ::kill(::getpid(), SIGKILL);
  return true;
}

void set_fault(const char* text) { the_fault().set(text); }

}  // namespace pmetal
