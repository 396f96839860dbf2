// Candidates of `glu` and `glu_backward` on the CPU.
#pragma once

#include "ops/activation.h"

namespace pmetal::cpu {

void glu_plain(const ops::GluArgs& args, const KernelContext& kernel);
void glu_backward_plain(const ops::GluArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
