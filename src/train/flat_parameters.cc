#include "train/flat_parameters.h"

#include <algorithm>
#include <cmath>

#include "ops/elementwise.h"

namespace pmetal::train {
namespace {

constexpr int64_t kAlign = 32;  // elements between parameters: every view starts on a 64-byte line in bf16

}  // namespace

FlatParameters::FlatParameters(Context& ctx, std::vector<Trainable> trainables) {
  PMETAL_ASSERT(!trainables.empty());
  std::stable_sort(trainables.begin(), trainables.end(), [](const Trainable& a, const Trainable& b) {
    return std::pair(a.lr_scale, a.decays) < std::pair(b.lr_scale, b.decays);
  });
  int64_t end = 0;
  for (const Trainable& t : trainables) {
    if (groups_.empty() || groups_.back().lr_scale != t.lr_scale || groups_.back().decays != t.decays)
      groups_.push_back({t.lr_scale, t.decays, end, end});
    items_.push_back({t.key, t.slot->shape(), end, t.slot});
    count_ += t.slot->numel();
    end += (t.slot->numel() + kAlign - 1) / kAlign * kAlign;
    groups_.back().end = end;
  }
  const DType compute = trainables[0].slot->dtype();
  for (Tensor* flat : {&master_, &gradient_, &m_, &v_}) {
    *flat = ctx.empty({end}, DType::kF32);
    ops::fill(ctx, *flat, 0);
  }
  if (compute != DType::kF32) {
    weight_ = ctx.empty({end}, compute);
    ops::fill(ctx, weight_, 0);
  }
  for (Item& item : items_) {
    PMETAL_ASSERT(item.slot->dtype() == compute, "{} is {}", item.key, name_of(item.slot->dtype()));
    ops::copy(ctx, *item.slot, view(master_, item));
    if (weight_.defined()) ops::copy(ctx, *item.slot, view(weight_, item));
    *item.slot = make_leaf(view(weight_.defined() ? weight_ : master_, item), item.key, view(gradient_, item));
  }
}

FlatParameters::~FlatParameters() {
  for (Item& item : items_) *item.slot = item.slot->detached();
}

void FlatParameters::zero_gradients(Context& ctx) { ops::fill(ctx, gradient_, 0); }

double FlatParameters::gradient_norm(Context& ctx) const { return std::sqrt(ops::sum_squares(ctx, gradient_)); }

void FlatParameters::update(Context& ctx, const AdamWOptions& o, double lr, ops::AdamWArgs hyper) {
  hyper.beta1 = static_cast<float>(o.beta1);
  hyper.beta2 = static_cast<float>(o.beta2);
  hyper.eps = static_cast<float>(o.eps);
  for (const Group& g : groups_) {
    const auto part = [&](const Tensor& flat) {
      return flat.defined() ? flat.narrowed(0, g.begin, g.end - g.begin) : Tensor();
    };
    hyper.lr = static_cast<float>(lr * g.lr_scale);
    hyper.weight_decay = g.decays ? static_cast<float>(o.weight_decay) : 0;
    ops::adamw(ctx, part(master_), part(gradient_), part(m_), part(v_), part(weight_), hyper);
  }
}

void FlatParameters::step(Context& ctx, const AdamWOptions& o, double lr, double scale, int64_t step) {
  ops::AdamWArgs hyper;
  hyper.grad_scale = static_cast<float>(scale);
  hyper.step = step;
  update(ctx, o, lr, hyper);
}

void FlatParameters::set_updates(Context& ctx, int64_t made) {
  if (!decision_) decision_ = ctx.empty({ops::kStepDecision}, DType::kF64);
  ops::fill(ctx, decision_, static_cast<double>(made));  // the rest is written by the next step
}

void FlatParameters::decided_step(Context& ctx, const AdamWOptions& o, double lr, double max_norm, const Tensor& loss) {
  if (!decision_) set_updates(ctx, 0);
  ops::decide_step(ctx, gradient_, loss, max_norm, decision_);
  ops::AdamWArgs hyper;
  hyper.decision = decision_.view();
  update(ctx, o, lr, hyper);
}

void FlatParameters::masters_changed(Context& ctx) {
  if (weight_.defined()) ops::copy(ctx, master_, weight_);
}

Snapshot FlatParameters::empty_snapshot(Context& ctx) const {
  Snapshot s;
  for (Tensor* t : {&s.master, &s.m, &s.v}) {
    *t = ctx.empty(master_.shape(), DType::kF32);
    ops::fill(ctx, *t, 0);  // the padding between parameters is never written
  }
  return s;
}

void FlatParameters::keep(Context& ctx, Snapshot& to) const {
  if (!to.defined()) to = empty_snapshot(ctx);
  ops::copy(ctx, master_, to.master);
  ops::copy(ctx, m_, to.m);
  ops::copy(ctx, v_, to.v);
}

void FlatParameters::go_back(Context& ctx, const Snapshot& to) {
  ops::copy(ctx, to.master, master_);
  ops::copy(ctx, to.m, m_);
  ops::copy(ctx, to.v, v_);
  masters_changed(ctx);
}

int64_t FlatParameters::size_bytes() const {
  int64_t n = 0;
  for (const Tensor* t : {&master_, &gradient_, &m_, &v_, &weight_})
    if (t->defined()) n += t->size_bytes();
  return n;
}

}  // namespace pmetal::train
