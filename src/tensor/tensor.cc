#include "tensor/tensor.h"

namespace pmetal {

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

Tensor::Tensor(Buffer buffer, Shape shape, DType dtype)
    : buffer_(std::move(buffer)), shape_(shape), strides_(contiguous_strides(shape)), dtype_(dtype), defined_(true) {
  PMETAL_ASSERT(buffer_.size_bytes() >= numel() * size_of(dtype), "{} bytes for shape {} of {}", buffer_.size_bytes(),
                shape.to_string(), name_of(dtype));
}

bool Tensor::is_contiguous() const {
  int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

View Tensor::view() const {
  View v;
  v.data = buffer_.data();
  v.dtype = dtype_;
  v.rank = rank();
  for (int i = 0; i < rank(); ++i) {
    v.shape[i] = shape_[i];
    v.strides[i] = strides_[i];
  }
  return v;
}

Tensor Tensor::reshaped(Shape shape) const {
  PMETAL_ASSERT(is_contiguous(), "reshape of a strided tensor {}", shape_.to_string());
  int64_t known = 1;
  int free = -1;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == -1) {
      PMETAL_ASSERT(free < 0, "two free dimensions in {}", shape.to_string());
      free = i;
    } else {
      known *= shape[i];
    }
  }
  if (free >= 0) shape[free] = known ? numel() / known : 0;
  PMETAL_ASSERT(shape.numel() == numel(), "reshape {} to {}", shape_.to_string(), shape.to_string());
  Tensor t = detached();
  t.shape_ = shape;
  t.strides_ = contiguous_strides(shape);
  t.room_ = 0;
  return t;
}

Tensor Tensor::split_last(int64_t n) const {
  PMETAL_ASSERT(rank() >= 1 && n > 0 && dim(-1) % n == 0, "{} in {} parts", shape_.to_string(), n);
  Tensor t = detached();
  std::vector<int64_t> shape(shape_.dims().begin(), shape_.dims().end()),
      strides(strides_.dims().begin(), strides_.dims().end());
  const int64_t d = shape.back() / n;
  shape.back() = n;
  shape.push_back(d);
  strides.insert(strides.end() - 1, strides.back() * d);
  t.shape_ = Shape(std::span<const int64_t>(shape));
  t.strides_ = Shape(std::span<const int64_t>(strides));
  return t;
}

bool Tensor::can_merge_last() const { return rank() >= 2 && (dim(-2) == 1 || strides_[-2] == dim(-1) * strides_[-1]); }

Tensor Tensor::merged_last() const {
  PMETAL_ASSERT(can_merge_last(), "{} is strided", shape_.to_string());
  Tensor t = detached();
  std::vector<int64_t> shape(shape_.dims().begin(), shape_.dims().end()),
      strides(strides_.dims().begin(), strides_.dims().end());
  const int64_t step = strides.back();
  shape.pop_back(), strides.pop_back();
  shape.back() *= dim(-1);
  strides.back() = step;
  t.shape_ = Shape(std::span<const int64_t>(shape));
  t.strides_ = Shape(std::span<const int64_t>(strides));
  return t;
}

Tensor Tensor::behind(int64_t n) const {
  PMETAL_ASSERT(rank() == 2 && n <= room_, "{} columns behind {} with room for {}", n, shape_.to_string(), room_);
  Tensor t = detached();
  const int64_t offset = dim(1) * size_of(dtype_);
  t.buffer_ = buffer_.slice(offset, buffer_.size_bytes() - offset);
  t.shape_[1] = n;
  t.room_ = 0;
  return t;
}

Tensor Tensor::widened(int64_t n) const {
  PMETAL_ASSERT(rank() == 2 && n <= room_, "{} columns behind {} with room for {}", n, shape_.to_string(), room_);
  Tensor t = detached();
  t.shape_[1] += n;
  t.room_ -= n;
  return t;
}

Tensor with_room(Buffer buffer, int64_t rows, int64_t n, int64_t room, DType dtype) {
  Tensor t(std::move(buffer), {rows, n + room}, dtype);
  t.shape_[1] = n;
  t.room_ = room;
  return t;
}

Tensor Tensor::narrowed(int dim, int64_t begin, int64_t length) const {
  if (dim < 0) dim += rank();
  PMETAL_ASSERT(dim < rank() && begin >= 0 && length >= 0 && begin + length <= shape_[dim], "[{}, {}) of {}", begin,
                begin + length, shape_.to_string());
  Tensor t = detached();
  t.shape_[dim] = length;
  if (dim != 0) t.room_ = 0;
  const int64_t offset = begin * strides_[dim] * size_of(dtype_);
  t.buffer_ = buffer_.slice(offset, buffer_.size_bytes() - offset);
  return t;
}

Tensor Tensor::detached() const {
  Tensor t = *this;
  t.variable_ = nullptr;
  return t;
}

void Tensor::check_host(size_t element_size) const {
  PMETAL_ASSERT(defined_ && device().is_cpu(), "host pointer of a tensor on {}", to_string(device()));
  PMETAL_ASSERT(element_size == static_cast<size_t>(size_of(dtype_)), "element size {} of {}", element_size,
                name_of(dtype_));
}

}  // namespace pmetal
