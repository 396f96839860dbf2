// NVTX ranges: PMETAL_NVTX=1 names ops and blocks on the timeline of Nsight Systems. NVTX is a header: where no tool
// listens a range costs one branch.
#include <cstdlib>

#include <nvtx3/nvToolsExt.h>

#include "ops/device.h"

namespace pmetal::ops {

const RangeMarks* range_marks_cuda() {
  static const RangeMarks marks{[](const char* name) { nvtxRangePushA(name); }, [] { nvtxRangePop(); }};
  const char* wanted = std::getenv("PMETAL_NVTX");
  return wanted && *wanted && *wanted != '0' ? &marks : nullptr;
}

}  // namespace pmetal::ops
