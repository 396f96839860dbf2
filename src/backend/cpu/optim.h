// Candidates of `adamw` and `sum_squares` on the CPU.
#pragma once

#include "ops/optim.h"

namespace pmetal::cpu {

void adamw_plain(const ops::AdamWArgs& args, const KernelContext& kernel);
void sum_squares_plain(const ops::SumSquaresArgs& args, const KernelContext& kernel);
int64_t sum_squares_plain_workspace(const ops::SumSquaresArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
