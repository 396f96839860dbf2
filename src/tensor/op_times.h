// Where a step's time goes: seconds and calls of each (op, kernel), filled by dispatch() while a Context carries one.
// On the CPU kernels end when they return; on a GPU the figures are launch times.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

namespace pmetal {

struct OpTime {
  std::string_view op, kernel;
  int64_t calls = 0;
  double seconds = 0;
  double least = 0;  // the calls of one run, each at its shortest over all runs
};

class OpTimes {
 public:
  // The same step again: on a machine that others use too, the shortest time of each call tells most.
  void next_run() { at_ = 0; }
  void add(std::string_view op, std::string_view kernel, double seconds) {
    size_t r = 0;
    while (r < rows_.size() && (rows_[r].op.data() != op.data() || rows_[r].kernel.data() != kernel.data())) ++r;
    if (r == rows_.size()) rows_.push_back({op, kernel});
    OpTime& row = rows_[r];
    ++row.calls;
    row.seconds += seconds;
    if (at_ == calls_.size()) calls_.push_back({r, seconds}), row.least += seconds;
    Call& call = calls_[at_++];
    if (call.row != r) return;  // another step
    const double shorter = std::min(call.seconds, seconds);
    row.least += shorter - call.seconds;
    call.seconds = shorter;
  }
  const std::vector<OpTime>& rows() const { return rows_; }
  void clear() { rows_.clear(), calls_.clear(), at_ = 0; }

 private:
  struct Call {
    size_t row;
    double seconds;
  };
  std::vector<OpTime> rows_;  // a step has a few dozen
  std::vector<Call> calls_;   // of one run, in order
  size_t at_ = 0;
};

}  // namespace pmetal
