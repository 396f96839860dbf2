#include "models/decoder.h"

#include <cmath>

#include "ops/elementwise.h"
#include "ops/norm.h"

namespace pmetal::models {
namespace {

using nn::Linear;
using nn::Parameter;

struct DecoderStep : StepValues {
  ops::RopeTable rope;
};

struct Block {
  Parameter input_norm, post_norm, q_norm, k_norm;
  Linear q, k, v, o, gate, up, down;
};

class Decoder final : public Model {
 public:
  explicit Decoder(DecoderConfig config) : c_(std::move(config)), rope_(c_.rope) {
    ModelInfo& info = c_.info;
    const int64_t h = info.hidden, q = info.heads * info.head_dim, kv = c_.kv_heads * info.head_dim;
    info.rope_depends_on_length = c_.rope.depends_on_length();
    embedding_ = nn::Embedding("model.embed_tokens", info.vocabulary, h);
    if (info.pad) embedding_.padding_index = *info.pad;
    for (int64_t i = 0; i < info.layers; ++i) {
      const std::string p = fmt::format("model.layers.{}.", i);
      Block b;
      b.input_norm = {p + "input_layernorm.weight", {h}, 1, {}};
      b.q = Linear(p + "self_attn.q_proj", h, q, c_.qkv_bias);
      b.k = Linear(p + "self_attn.k_proj", h, kv, c_.qkv_bias);
      b.v = Linear(p + "self_attn.v_proj", h, kv, c_.qkv_bias);
      b.o = Linear(p + "self_attn.o_proj", q, h, c_.o_bias);
      if (c_.qk_norm) {
        b.q_norm = {p + "self_attn.q_norm.weight", {info.head_dim}, 1, {}};
        b.k_norm = {p + "self_attn.k_norm.weight", {info.head_dim}, 1, {}};
      }
      b.post_norm = {p + "post_attention_layernorm.weight", {h}, 1, {}};
      b.gate = Linear(p + "mlp.gate_proj", h, c_.intermediate, c_.mlp_bias);
      b.up = Linear(p + "mlp.up_proj", h, c_.intermediate, c_.mlp_bias);
      b.down = Linear(p + "mlp.down_proj", c_.intermediate, h, c_.mlp_bias);
      blocks_.push_back(std::move(b));
      info.memory.push_back({c_.kv_heads, info.head_dim, info.head_dim, c_.window[static_cast<size_t>(i)]});
    }
    norm_ = {"model.norm.weight", {h}, 1, {}};
    lm_head_ = Linear("lm_head", h, info.vocabulary);
  }

  const ModelInfo& info() const override { return c_.info; }

  std::shared_ptr<StepValues> begin(Context& ctx, const nn::Batch& batch) override {
    auto step = std::make_shared<DecoderStep>();
    step->rope = rope_.table(ctx, batch, dtype == DType::kF64 ? DType::kF64 : DType::kF32);
    return step;
  }

  Hidden embed(Context& ctx, const nn::Batch& batch) override { return {embedding_.forward(ctx, batch, dtype), {}}; }

  Hidden block(Context& ctx, int64_t layer, const Hidden& x, const nn::Batch& batch, const StepValues& step) override {
    const Block& b = blocks_[static_cast<size_t>(layer)];
    const ops::RopeTable& rope = static_cast<const DecoderStep&>(step).rope;
    const Linear* qkv[] = {&b.q, &b.k, &b.v};
    const auto [residual, p] = nn::project(ctx, batch, x, norm_of(b.input_norm), qkv);
    const Tensor q = ops::split_heads(ctx, p[0], c_.info.heads), k = ops::split_heads(ctx, p[1], c_.kv_heads),
                 v = ops::split_heads(ctx, p[2], c_.kv_heads);
    ops::AttentionOptions options;
    options.mask.window = c_.window[static_cast<size_t>(layer)];
    options.scale = attention_scale();
    options.room = nn::room_for(ctx, b.o);
    Tensor a = nn::attend_rotated(ctx, static_cast<int>(layer), q, k, v,
                                  {b.q_norm.value, b.k_norm.value, c_.rms_norm_eps}, rope, batch, options);
    a = ops::merge_heads(ctx, a);
    const Hidden attended = nn::add_projected(ctx, batch, residual, b.o, a);
    const auto [sum, y] = nn::project_gated(ctx, batch, attended, norm_of(b.post_norm), b.gate, b.up, c_.activation,
                                            nn::room_for(ctx, b.down));
    return nn::add_projected(ctx, batch, sum, b.down, y[0]);
  }

  Tensor all_blocks(Context& ctx, const Tensor& x, const nn::Batch& batch, const StepValues& step) override {
    ops::DecodeBlocks all{.heads = c_.info.heads,
                          .kv_heads = c_.kv_heads,
                          .head_dim = c_.info.head_dim,
                          .eps = c_.rms_norm_eps,
                          .scale = attention_scale(),
                          .activation = c_.activation};
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const Block& b = blocks_[i];
      for (const Linear* l : {&b.q, &b.k, &b.v, &b.o, &b.gate, &b.up, &b.down})
        if (!nn::is_plain(*l)) return {};
      all.blocks.push_back({nn::frozen(b.q), nn::frozen(b.k), nn::frozen(b.v), nn::frozen(b.o), nn::frozen(b.gate),
                            nn::frozen(b.up), nn::frozen(b.down), b.input_norm.value, b.post_norm.value, b.q_norm.value,
                            b.k_norm.value, c_.window[i]});
    }
    return batch.memory->run_blocks(ctx, x, all, static_cast<const DecoderStep&>(step).rope, batch);
  }

  Tensor final(Context& ctx, const Hidden& x, const nn::Batch& batch) override {
    if (!batch.output_rows.defined() && x.delta.defined())
      return ops::add_rms_norm(ctx, x.residual, x.delta, norm_.value, c_.rms_norm_eps).normed;
    const Tensor sum = x.sum(ctx);
    const Tensor rows = batch.output_rows.defined() ? ops::gather_distinct_rows(ctx, sum, batch.output_rows) : sum;
    return ops::rms_norm(ctx, rows, norm_.value, c_.rms_norm_eps);
  }

  Head head() override {
    if (c_.info.tied_head) {
      lm_head_.weight = embedding_.weight;
      lm_head_.trainable = embedding_.trainable;
    }
    Head head;
    head.frozen = lm_head_.trainable.defined() ? nullptr : &lm_head_.weight;
    head.dense = lm_head_.trainable;
    head.linear = &lm_head_;
    return head;
  }

  void visit(ParameterVisitor& v) override {
    v.on(embedding_);
    for (Block& b : blocks_) {
      v.on(b.input_norm);
      Linear *const qkv[] = {&b.q, &b.k, &b.v}, *const gate_up[] = {&b.gate, &b.up};
      v.on_group(qkv);
      v.on(b.o);
      if (c_.qk_norm) v.on(b.q_norm), v.on(b.k_norm);
      v.on(b.post_norm);
      v.on_group(gate_up);
      v.on(b.down);
    }
    v.on(norm_);
    if (!c_.info.tied_head) v.on(lm_head_);
  }

  bool ignores(const std::string& tensor) const override {
    return tensor.ends_with(".rotary_emb.inv_freq") || (c_.info.tied_head && tensor == "lm_head.weight");
  }
  bool is_residual_output(const std::string& module) const override {
    return module.ends_with(".o_proj") || module.ends_with(".down_proj");
  }

 private:
  float attention_scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(c_.info.head_dim))); }
  nn::Norm norm_of(const Parameter& weight) const { return {weight.value, c_.rms_norm_eps}; }

  DecoderConfig c_;
  nn::Rope rope_;
  nn::Embedding embedding_;
  std::vector<Block> blocks_;
  Parameter norm_;
  Linear lm_head_;
};

}  // namespace

std::unique_ptr<Model> make_decoder(DecoderConfig config) { return std::make_unique<Decoder>(std::move(config)); }

}  // namespace pmetal::models
