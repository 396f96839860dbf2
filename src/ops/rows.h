// Rows by index where each is named at most once: the rows of a step that go on to the head.
#pragma once

#include "tensor/tape.h"

namespace pmetal::ops {

// gather_rows() of distinct indices: the gradient is moved to its rows, nothing is added up.
Tensor gather_distinct_rows(Context& ctx, const Tensor& x, const Tensor& index);

}  // namespace pmetal::ops
