// head_loss on AMX tiles: the candidate. Other types and heads go the way of head_loss_flash.cc.
#include "backend/cpu/gemm/amx_tiles.h"
#include "backend/cpu/head_loss.h"
#include "backend/cpu/head_loss_tiles.h"

namespace pmetal::cpu {

const char* head_loss_amx_decline(const ops::HeadLossArgs& args, const KernelContext&) {
  if (isa() < Isa::kAmx) return "the instruction set is not here";
  return HeadLossTiles<HardwareTiles>::decline(args);
}
int64_t head_loss_amx_workspace(const ops::HeadLossArgs& args, const KernelContext& kernel) {
  return HeadLossTiles<HardwareTiles>(amx_kernels(), args, workers_of(kernel)).workspace();
}
void head_loss_amx(const ops::HeadLossArgs& args, const KernelContext& kernel) {
  if (args.hidden.dim(0) > 0) HeadLossTiles<HardwareTiles>(amx_kernels(), args, workers_of(kernel)).run(kernel);
}

}  // namespace pmetal::cpu
