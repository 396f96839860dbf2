// Candidates of `rms_norm` and `rms_norm_backward` on the CPU.
#pragma once

#include "ops/norm.h"

namespace pmetal::cpu {

void rms_norm_plain(const ops::RmsNormArgs& args, const KernelContext& kernel);
void rms_norm_backward_plain(const ops::RmsNormBackwardArgs& args, const KernelContext& kernel);
int64_t rms_norm_backward_plain_workspace(const ops::RmsNormBackwardArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
