// attention on AMX tiles (attention_strips.h, attention_backward_lanes.h).
#pragma once

#include "ops/attention.h"

namespace pmetal::cpu {

const char* attention_amx_decline(const ops::AttentionArgs& args, const KernelContext& kernel);
void attention_amx(const ops::AttentionArgs& args, const KernelContext& kernel);
int64_t attention_amx_workspace(const ops::AttentionArgs& args, const KernelContext& kernel);
const char* attention_backward_amx_decline(const ops::AttentionBackwardArgs& args, const KernelContext& kernel);
void attention_backward_amx(const ops::AttentionBackwardArgs& args, const KernelContext& kernel);
int64_t attention_backward_amx_workspace(const ops::AttentionBackwardArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
