// The products of few rows (gemv.cu) as a candidate of `linear`.
#pragma once

#include "ops/linear.h"

namespace pmetal::cuda {

const char* decline_gemv(const ops::LinearArgs& args, const KernelContext& kernel);
void run_gemv(const ops::LinearArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cuda
