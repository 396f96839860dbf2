// The gradients of outputs that are columns of one matrix, as one matrix: each is made in its place where the op that
// makes it can (GradSink::empty_for), and is copied there otherwise.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "tensor/tape.h"

namespace pmetal::ops {

class ColumnGradients {
 public:
  // of [rows, columns] with room for `room` more columns (Tensor::room())
  ColumnGradients(int64_t rows, int64_t columns, DType dtype, int64_t room = 0)
      : rows_(rows), columns_(columns), room_(room), dtype_(dtype) {}

  // For the backward pass: the matrix with `grads` in it, zeros for those that are undefined; widths sum up to columns.
  Tensor gather(Context& ctx, std::span<const Tensor> grads, std::span<const int64_t> widths) const;
  // Tells the recorded outputs where their gradients want to lie. Call it after Tape::record().
  void place(std::span<Tensor> outputs) const;

 private:
  Tensor all(Context& ctx) const;

  int64_t rows_, columns_, room_;
  DType dtype_;
  std::shared_ptr<Tensor> joint_ = std::make_shared<Tensor>();  // made when the first gradient is
};

}  // namespace pmetal::ops
