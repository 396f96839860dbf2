// In place of the *_sm90.cu kernels where the build's architectures have no sm_90a.
#include "backend/cuda/decode_blocks.h"
#include "backend/cuda/head_loss_sm90.h"
#include "base/error.h"

namespace pmetal::cuda {

bool has_sm90_kernels() { return false; }
void launch_attention_sm90(StreamHandle, const AttentionLaunch&) { PMETAL_ASSERT(false, "built without sm_90a"); }
void launch_attention_backward_sm90(StreamHandle, const AttentionLaunch&) {
  PMETAL_ASSERT(false, "built without sm_90a");
}
int64_t row_loss_sm90_columns() { return 0; }
void launch_row_loss_sm90(StreamHandle, const RowLossLaunch&) { PMETAL_ASSERT(false, "built without sm_90a"); }
int decode_blocks_stages(const DecodeBlocksShape&, int) { return 0; }
int64_t decode_blocks_workspace(const DecodeBlocksShape&) { return 0; }
void launch_decode_blocks(StreamHandle, DecodeBlocksLaunch&, void*, int) {
  PMETAL_ASSERT(false, "built without sm_90a");
}

}  // namespace pmetal::cuda
