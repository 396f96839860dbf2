// Tensor: a cheap handle on bytes with dtype, shape and strides. Copies share storage; views are free. A tensor that
// takes part in differentiation carries a Variable (see tape.h); a plain value carries none.
#pragma once

#include <memory>
#include <vector>

#include "base/buffer.h"
#include "base/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace pmetal {

class Variable;

class Tensor {
 public:
  Tensor() = default;
  // contiguous, row-major, over the first numel * size_of(dtype) bytes of `buffer`
  Tensor(Buffer buffer, Shape shape, DType dtype);

  bool defined() const { return defined_; }
  explicit operator bool() const { return defined_; }
  DType dtype() const { return dtype_; }
  Device device() const { return buffer_.device(); }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }  // in elements
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t numel() const { return shape_.numel(); }
  int64_t size_bytes() const { return numel() * size_of(dtype_); }
  bool is_contiguous() const;

  std::byte* bytes() const { return buffer_.data(); }
  // typed host pointer; asserts the dtype and that the data lies on the CPU
  template <class T>
  T* data() const {
    check_host(sizeof(T));
    return reinterpret_cast<T*>(buffer_.data());
  }
  View view() const;
  const Buffer& buffer() const { return buffer_; }

  // Room: elements behind each index of the first dimension that belong to this tensor alone, so that a product may
  // have more columns than the value it is made from (ops/lora_group.h). Kept by copies and by views that leave the
  // first dimension's step and the other dimensions whole.
  int64_t room() const { return room_; }
  Tensor behind(int64_t n) const;   // [rows, features] -> the n columns after them
  Tensor widened(int64_t n) const;  // [rows, features] -> [rows, features + n]

  // Views: share storage, keep no Variable (the differentiable versions are in ops/).
  Tensor reshaped(Shape shape) const;                             // contiguous tensors; one dimension may be -1
  Tensor split_last(int64_t n) const;                             // [.., n · d] -> [.., n, d]
  bool can_merge_last() const;                                    // whether the two last dimensions lie together
  Tensor merged_last() const;                                     // [.., n, d] -> [.., n · d] where they do
  Tensor narrowed(int dim, int64_t begin, int64_t length) const;  // [.., begin : begin + length, ..]
  Tensor detached() const;                                        // same value without a Variable

  const std::shared_ptr<Variable>& variable() const { return variable_; }
  void set_variable(std::shared_ptr<Variable> variable) { variable_ = std::move(variable); }
  bool requires_grad() const { return variable_ != nullptr; }

 private:
  void check_host(size_t element_size) const;
  Buffer buffer_;
  Shape shape_, strides_;
  DType dtype_ = DType::kF32;
  bool defined_ = false;
  int64_t room_ = 0;
  std::shared_ptr<Variable> variable_;

  friend Tensor with_room(Buffer buffer, int64_t rows, int64_t n, int64_t room, DType dtype);
};

// [rows, n] over a buffer of [rows, n + room]
Tensor with_room(Buffer buffer, int64_t rows, int64_t n, int64_t room, DType dtype);

Shape contiguous_strides(const Shape& shape);

// host tensor holding a copy of the values
template <class T>
Tensor host_tensor(std::span<const T> values, Shape shape, DType dtype) {
  PMETAL_ASSERT(static_cast<int64_t>(values.size()) == shape.numel() &&
                sizeof(T) == static_cast<size_t>(size_of(dtype)));
  Tensor t(allocate_host(static_cast<int64_t>(values.size_bytes())), shape, dtype);
  std::copy(values.begin(), values.end(), reinterpret_cast<T*>(t.bytes()));
  return t;
}

}  // namespace pmetal
