// Shared by the dense formats: one plane of a plain dtype, row-major.
#pragma once

#include "base/error.h"
#include "quant/weight.h"

namespace pmetal::quant {

template <DType kDType>
Format dense_format(std::string_view name) {
  Format f{};
  f.name = name;
  f.compute = kDType;
  f.row_cut = f.col_cut = 1;
  f.is_dense = true;
  f.layout = [](int64_t out, int64_t in) { return std::vector<PlaneLayout>{{kDType, out * in * size_of(kDType)}}; };
  f.decode_rows = [](const Weight& w, int64_t begin, int64_t end, float* to) {
    convert(w.planes[0].bytes.data() + begin * w.in * size_of(kDType), kDType, to, DType::kF32, (end - begin) * w.in);
  };
  f.encode_rows = [](Weight& w, int64_t begin, int64_t end, const float* from) {
    convert(from, DType::kF32, w.planes[0].bytes.data() + begin * w.in * size_of(kDType), kDType, (end - begin) * w.in);
  };
  return f;
}

}  // namespace pmetal::quant
