// Launcher of row losses by clusters; see head_loss_sm90.cu.
#pragma once

#include "backend/cuda/kernels.h"

namespace pmetal::cuda {

// a.n is a multiple of 4, at most row_loss_sm90_columns()
int64_t row_loss_sm90_columns();
void launch_row_loss_sm90(StreamHandle stream, const RowLossLaunch& a);

}  // namespace pmetal::cuda
