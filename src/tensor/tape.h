// Reverse-mode differentiation, first order. Ops record a Node with a backward closure while the context has a tape and
// an input has a Variable. backward() walks the nodes from the last to the first and frees each when it is done.
//
// What the tape keeps: an op saves what its backward needs as Saved values. A cheap producer (norm, rope, activation,
// cast) attaches to its output a way to compute it again; saving such a tensor saves that way, not the bytes.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/context.h"

namespace pmetal {

// Computes a value again from saved inputs. Bits equal the first time: same kernels, same counters.
using Recompute = std::function<Tensor(Context&)>;
// Several ops may ask for one value (linears that share an input): it is made once and kept until the backward pass has
// passed its producer.
struct Recomputed {
  Recompute make;
  Tensor value;
};

// The gradient identity of one tensor value.
class Variable {
 public:
  Tensor grad;           // what has been accumulated; defined after something flowed
  bool is_leaf = false;  // a parameter: its grad persists after backward and adds up over calls
  std::string name;      // leaves: the Hugging Face parameter name
  std::shared_ptr<Recomputed> recompute;
  // Where the gradient may be written, of the value's shape: what the value's producer would else copy it to (results
  // of one product want their gradients side by side). Called at most once; null: nowhere in particular.
  std::function<Tensor(Context&)> place;
};

// A value kept for backward: the tensor itself or the way to compute it again.
class Saved {
 public:
  Saved() = default;
  Saved(const Tensor& tensor);  // NOLINT(google-explicit-constructor)
  Tensor get(Context& ctx) const;
  bool defined() const { return tensor_.defined() || recompute_ != nullptr; }

 private:
  Tensor tensor_;
  std::shared_ptr<Recomputed> recompute_;
};

// Where a backward closure puts the gradients of its op's inputs.
class GradSink {
 public:
  using Accumulate = void (*)(Context&, const Tensor& to, const Tensor& value);  // to += value, f32 or same dtype
  GradSink(Context& ctx, std::span<const std::shared_ptr<Variable>> inputs, Accumulate accumulate)
      : ctx_(ctx), inputs_(inputs), accumulate_(accumulate) {}
  bool wants(int input) const { return inputs_[static_cast<size_t>(input)] != nullptr; }
  // Adds `gradient` (any shape with the input's element count) to the input's gradient.
  void add(int input, const Tensor& gradient);
  // A kernel that can accumulate by itself asks for the destination: the defined grad of a leaf (f32, to be added to),
  // or an undefined tensor (then use add()).
  Tensor destination(int input) const;
  // Where an activation's first gradient is best written, or an undefined tensor: then anywhere. add() hands it over.
  Tensor place(int input, const Shape& shape, DType dtype) const;
  // A tensor for an activation's gradient: place(), else a new one.
  Tensor empty_for(int input, const Shape& shape, DType dtype) const {
    const Tensor t = place(input, shape, dtype);
    if (t.defined()) return t;
    return ctx_.empty_spread(shape, dtype);
  }
  // The same as destination() for an activation: its gradient so far, when nobody else holds it and it is a tensor of
  // this shape and dtype with dense rows; a product then adds to it in its epilogue. Undefined: use add().
  Tensor sum_so_far(int input, const Shape& shape, DType dtype) const;

 private:
  Context& ctx_;
  std::span<const std::shared_ptr<Variable>> inputs_;
  Accumulate accumulate_;
};

// grads[i] is the gradient of output i, undefined when nothing flowed into it.
using Backward = std::function<void(Context&, std::span<const Tensor> grads, GradSink& sink)>;

class Tape {
 public:
  // `keeps_values`: what ops could make again is kept as it is
  explicit Tape(GradSink::Accumulate accumulate, bool keeps_values = false)
      : accumulate_(accumulate), keeps_values_(keeps_values) {}
  // Gives each output a Variable and remembers the op. Inputs without Variable get nothing. `recompute` (outputs of
  // cheap ops only) has one entry per output or none at all.
  void record(const char* op, std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs,
              Backward backward, std::vector<Recompute> recompute = {});
  // Runs backward from `output` with gradient `seed` (same shape), then forgets all nodes.
  void backward(Context& ctx, const Tensor& output, const Tensor& seed);
  void backward(Context& ctx, std::span<const std::pair<Tensor, Tensor>> outputs_and_seeds);
  size_t size() const { return nodes_.size(); }
  void clear() { nodes_.clear(); }
  GradSink::Accumulate accumulate() const { return accumulate_; }

 private:
  struct Node {
    const char* op;
    std::vector<std::shared_ptr<Variable>> inputs, outputs;
    Backward backward;
  };
  std::vector<Node> nodes_;
  GradSink::Accumulate accumulate_;
  bool keeps_values_;
};

// Makes `value` a leaf: a parameter whose gradient is accumulated in `grad` (f32 view of a flat buffer, or undefined:
// then a buffer is made, f32 or f64, when the first gradient comes).
Tensor make_leaf(const Tensor& value, std::string name, Tensor grad = {});

}  // namespace pmetal
