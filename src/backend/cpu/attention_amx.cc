// attention on AMX tiles: the candidates. Other types and head sizes go the way of attention_gemm.cc.
#include "backend/cpu/attention_amx.h"

#include "backend/cpu/attention_backward_lanes.h"
#include "backend/cpu/attention_gemm.h"
#include "backend/cpu/attention_strips.h"
#include "backend/cpu/gemm/amx_tiles.h"

namespace pmetal::cpu {

const char* attention_amx_decline(const ops::AttentionArgs& args, const KernelContext&) {
  if (const char* why = decline_attention(args, Isa::kAmx)) return why;
  return AttentionStrips<HardwareTiles>::takes(args) ? nullptr : "takes bf16 with heads of a multiple of 32 alone";
}
int64_t attention_amx_workspace(const ops::AttentionArgs& args, const KernelContext& kernel) {
  return AttentionStrips<HardwareTiles>(amx_kernels(), args, workers_of(kernel)).workspace_bytes();
}
void attention_amx(const ops::AttentionArgs& args, const KernelContext& kernel) {
  if (args.q.numel() > 0) AttentionStrips<HardwareTiles>(amx_kernels(), args, workers_of(kernel)).run(kernel);
}

const char* attention_backward_amx_decline(const ops::AttentionBackwardArgs& args, const KernelContext& kernel) {
  if (const char* why = AttentionLevel<Isa::kAmx>::decline(args, kernel)) return why;
  return AttentionBackwardLanes<HardwareTiles>::takes(args) ? nullptr
                                                            : "takes bf16 with heads of a multiple of 32 alone";
}
int64_t attention_backward_amx_workspace(const ops::AttentionBackwardArgs& args, const KernelContext& kernel) {
  return AttentionBackwardLanes<HardwareTiles>(amx_kernels(), args).worker_bytes() * workers_of(kernel);
}
void attention_backward_amx(const ops::AttentionBackwardArgs& args, const KernelContext& kernel) {
  if (args.forward.q.numel() > 0) AttentionBackwardLanes<HardwareTiles>(amx_kernels(), args).run(kernel);
}

}  // namespace pmetal::cpu
