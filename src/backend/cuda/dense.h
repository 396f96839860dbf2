// The matrix [out, in] that a dense weight is.
#pragma once

#include "quant/weight.h"
#include "tensor/view.h"

namespace pmetal::cuda {

inline View dense_view(const quant::Weight& w) {
  return View{w.planes[0].bytes.data(), w.planes[0].dtype, 2, {w.out, w.in}, {w.row_step ? w.row_step : w.in, 1}};
}

}  // namespace pmetal::cuda
