// Dense bf16, row-major [out, in]: one plane.
#include "quant/dense.h"

namespace pmetal::quant {

extern const Format format_bf16;
const Format format_bf16 = dense_format<DType::kBF16>("bf16");

}  // namespace pmetal::quant
