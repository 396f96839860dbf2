// All trainable parameters in flat persistent buffers: f32 master weights, gradients and AdamW moments, and the compute
// dtype's copy that the forward reads. One launch of the optimizer per group covers everything.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ops/optim.h"
#include "tensor/tape.h"

namespace pmetal::train {

struct Trainable {
  std::string key;  // name in files
  Tensor* slot;     // where the model reads it; becomes a leaf
  double lr_scale = 1;
  bool decays = true;  // weight decay: not for 1-D tensors, biases, norms
};

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};

// masters and moments at one moment
struct Snapshot {
  Tensor master, m, v;
  bool defined() const { return master.defined(); }
};

class FlatParameters {
 public:
  FlatParameters(Context& ctx, std::vector<Trainable> trainables);
  ~FlatParameters();  // slots keep their last values as plain tensors
  FlatParameters(const FlatParameters&) = delete;
  FlatParameters& operator=(const FlatParameters&) = delete;

  int64_t count() const { return count_; }  // trainable numbers, padding not counted
  void zero_gradients(Context& ctx);
  double gradient_norm(Context& ctx) const;  // global L2
  // one AdamW step with gradients multiplied by `scale`; step counts from 1
  void step(Context& ctx, const AdamWOptions& options, double lr, double scale, int64_t step);

  // The same on a device that decides by itself (decides_alone()): clipped to max_norm (0: not at all), and not made
  // where the norm or `loss` [1] is not finite; the host reads decision() when it likes.
  static bool decides_alone(const Context& ctx) { return ctx.device().is_cuda(); }
  void decided_step(Context& ctx, const AdamWOptions& options, double lr, double max_norm, const Tensor& loss);
  const Tensor& decision() const { return decision_; }  // ops::StepDecision
  void set_updates(Context& ctx, int64_t made);         // for the bias correction of the next decided_step()

  struct Item {
    std::string key;
    Shape shape;
    int64_t offset = 0;
    Tensor* slot = nullptr;
  };
  const std::vector<Item>& items() const { return items_; }
  Tensor master(const Item& item) const { return view(master_, item); }
  Tensor gradient(const Item& item) const { return view(gradient_, item); }
  Tensor moment1(const Item& item) const { return view(m_, item); }
  Tensor moment2(const Item& item) const { return view(v_, item); }
  // after masters were overwritten (resume): the compute copies follow
  void masters_changed(Context& ctx);
  int64_t size_bytes() const;

  void keep(Context& ctx, Snapshot& to) const;  // a copy; the buffers of `to` are used again
  void go_back(Context& ctx, const Snapshot& to);
  static Tensor part(const Tensor& flat, const Item& item) { return view(flat, item); }
  Snapshot empty_snapshot(Context& ctx) const;

 private:
  struct Group {
    double lr_scale;
    bool decays;
    int64_t begin, end;
  };
  static Tensor view(const Tensor& flat, const Item& item) {
    return flat.narrowed(0, item.offset, item.shape.numel()).reshaped(item.shape);
  }
  void update(Context& ctx, const AdamWOptions& options, double lr, ops::AdamWArgs hyper);

  std::vector<Item> items_;
  std::vector<Group> groups_;
  Tensor master_, gradient_, m_, v_, weight_;  // [padded]; weight_ undefined when the compute dtype is f32
  Tensor decision_;
  int64_t count_ = 0;
};

}  // namespace pmetal::train
