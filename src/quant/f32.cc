// Dense f32, row-major [out, in]: one plane.
#include "quant/dense.h"

namespace pmetal::quant {

extern const Format format_f32;
const Format format_f32 = dense_format<DType::kF32>("f32");

}  // namespace pmetal::quant
