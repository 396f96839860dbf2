// Candidates of `rope_table` and `rope` on the CPU.
#pragma once

#include "ops/rope.h"

namespace pmetal::cpu {

void rope_table_plain(const ops::RopeTableArgs& args, const KernelContext& kernel);
void rope_plain(const ops::RopeArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
