// Candidates of `head_loss` on the CPU.
#pragma once

#include "ops/head_loss.h"

namespace pmetal::cpu {

void head_loss_plain(const ops::HeadLossArgs& args, const KernelContext& kernel);
int64_t head_loss_plain_workspace(const ops::HeadLossArgs& args, const KernelContext& kernel);
const char* head_loss_chunks_decline(const ops::HeadLossArgs& args, const KernelContext& kernel);
const char* head_loss_flash_decline(const ops::HeadLossArgs& args, const KernelContext& kernel);
void head_loss_flash(const ops::HeadLossArgs& args, const KernelContext& kernel);
int64_t head_loss_flash_workspace(const ops::HeadLossArgs& args, const KernelContext& kernel);

const char* head_loss_amx_decline(const ops::HeadLossArgs& args, const KernelContext& kernel);
void head_loss_amx(const ops::HeadLossArgs& args, const KernelContext& kernel);
int64_t head_loss_amx_workspace(const ops::HeadLossArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
