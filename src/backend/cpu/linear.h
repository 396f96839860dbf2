// Candidates of `linear` on the CPU, best first; declared here, one file per instruction set.
#pragma once

#include "ops/linear.h"

namespace pmetal::cpu {

void linear_plain(const ops::LinearArgs& args, const KernelContext& kernel);
int64_t linear_plain_workspace(const ops::LinearArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
