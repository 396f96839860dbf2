// Where a step's time goes: seconds and calls of each (op, kernel), filled by dispatch() while a Context carries one.
// On the CPU kernels end when they return; on a GPU the figures are launch times.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace pmetal {

struct OpTime {
  std::string_view op, kernel;
  int64_t calls = 0;
  double seconds = 0;
};

class OpTimes {
 public:
  void add(std::string_view op, std::string_view kernel, double seconds) {
    for (OpTime& row : rows_)
      if (row.op.data() == op.data() && row.kernel.data() == kernel.data()) {
        ++row.calls;
        row.seconds += seconds;
        return;
      }
    rows_.push_back({op, kernel, 1, seconds});
  }
  const std::vector<OpTime>& rows() const { return rows_; }
  void clear() { rows_.clear(); }

 private:
  std::vector<OpTime> rows_;  // a step has a few dozen
};

}  // namespace pmetal
