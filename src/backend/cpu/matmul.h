// Candidates of `matmul` on the CPU, best first; declared here, one file per instruction set.
#pragma once

#include "ops/linear.h"

namespace pmetal::cpu {

void matmul_plain(const ops::MatmulArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
