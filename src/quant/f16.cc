// Dense f16, row-major [out, in]: one plane.
#include "quant/dense.h"

namespace pmetal::quant {

extern const Format format_f16;
const Format format_f16 = dense_format<DType::kF16>("f16");

}  // namespace pmetal::quant
