// Launcher of rms_norm over rows of packs; see rms_norm_rows.cu.
#pragma once

#include "backend/cuda/kernels.h"

namespace pmetal::cuda {

inline constexpr int64_t kNormChunks = 1024;  // most parts of dweight
// a.packed, bf16 or f32; a.partial holds kNormChunks rows when dweight is wanted. False: rows are too long for it.
bool launch_rms_norm_rows(StreamHandle stream, const RmsNormLaunch& a, bool backward);

}  // namespace pmetal::cuda
