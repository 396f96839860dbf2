// Kernels of one op measured in turns, so that what a shared machine does meets all of them alike.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tensor/context.h"
#include "tensor/kernel.h"

namespace pmetal::bench {

// Runs the candidates of `list` that `names` names (none: all but the plain one) and that take `args`, `repeat` times,
// and prints for each the best, the tenth percentile and the median, and operations by the median.
template <class Args>
void measure_in_turns(Context& ctx, const KernelList<Args>& list, const Args& args,
                      const std::vector<std::string>& names, int64_t repeat, double operations) {
  struct Run {
    const Candidate<Args>* candidate;
    Buffer workspace;
    KernelContext kernel;
    std::vector<double> ms;
  };
  std::vector<Run> runs;
  for (const Candidate<Args>& c : list.candidates) {
    if (!names.empty() && std::find(names.begin(), names.end(), c.name) == names.end()) continue;
    if (names.empty() && std::strcmp(c.name, "plain") == 0) continue;
    Run run{&c, {}, {&ctx.threads(), nullptr, 0, nullptr, 0}, {}};
    if (c.decline && c.decline(args, run.kernel)) continue;
    if (c.workspace) {
      run.kernel.workspace_bytes = c.workspace(args, run.kernel);
      run.workspace = ctx.allocator().allocate(run.kernel.workspace_bytes);
      run.kernel.workspace = run.workspace.data();
    }
    runs.push_back(std::move(run));
  }
  for (int64_t i = 0; i < repeat; ++i)
    for (Run& run : runs) {
      const auto from = std::chrono::steady_clock::now();
      run.candidate->run(args, run.kernel);
      run.ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from).count());
    }
  for (Run& run : runs) {
    std::sort(run.ms.begin(), run.ms.end());
    const double median = run.ms[run.ms.size() / 2];
    std::printf("%-20s %-12s %8.2f %8.2f %8.2f ms %8.0f GFLOP/s\n", list.op, run.candidate->name, run.ms.front(),
                run.ms[run.ms.size() / 10], median, operations / median / 1e6);
  }
}

}  // namespace pmetal::bench
