// The plan against what the allocator of the real step counted, for a small random model: adapters and all parameters,
// both types, with and without recomputation; and what is chosen where memory is short.
#include "train/memory_plan.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/testing.h"
#include "train/train_testing.h"

namespace pmetal::train {
namespace {

std::unique_ptr<TrainTarget> with_adapter(Context& ctx, models::Model& model, bool dora) {
  adapters::PeftConfig config;
  config.r = 8;
  config.use_dora = dora;
  config.targets.all_linear = true;
  auto adapter = adapters::Adapter::create(ctx, model, config, 1);
  adapter->attach(model, 0);
  adapters::prepare_training(ctx, model, *adapter, 0);
  return make_adapter_target(model, std::move(adapter));
}

class MemoryPlanTest : public ::testing::Test {
 protected:
  fs::path folder = testing_support::scratch_dir("memory_plan");
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::shared_ptr<ThreadPool> threads = std::make_shared<ThreadPool>(2);

  void SetUp() override {
    write_file_atomic(folder / "config.json",
                      R"({"model_type":"qwen3","hidden_size":256,"intermediate_size":768,"num_hidden_layers":4,
                          "num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,"vocab_size":1024,
                          "max_position_embeddings":2048,"rms_norm_eps":1e-6,"rope_theta":10000,
                          "tie_word_embeddings":true,"hidden_act":"silu","initializer_range":0.02})");
    checkpoint = models::Checkpoint::open("random:" + (folder / "config.json").string());
  }

  void TearDown() override { fs::remove_all(folder); }

  enum class Kind { kLora, kDora, kFull };
  PlanRequest request(Kind kind, DType dtype, int64_t group) const {
    PlanRequest r;
    r.threads = threads;
    r.load = {.dtype = dtype, .for_training = kind == Kind::kFull};
    r.tokens = 200;
    r.loss.recompute_group = group;
    r.target = [this, kind, dtype](Context& ctx, models::Model& model) -> std::unique_ptr<TrainTarget> {
      if (kind == Kind::kFull) return make_model_target(model, *checkpoint, {}, dtype);
      return with_adapter(ctx, model, kind == Kind::kDora);
    };
    return r;
  }

  struct Measured {
    int64_t activations, total;
  };
  // two real steps; bytes by the allocator, and the frozen weights, which are no tensors of it
  Measured measure(const PlanRequest& r) const {
    Context ctx(threads);
    const auto model = models::build(checkpoint->config(), checkpoint->source());
    models::load_weights(ctx, *model, *checkpoint, r.load);
    const std::unique_ptr<TrainTarget> target = r.target(ctx, *model);
    FlatParameters parameters(ctx, target->trainables());
    data::PackedSequence packed;
    data::Example e;
    for (int64_t i = 0; i < r.tokens; ++i) e.ids.push_back(static_cast<int32_t>(i * 7 % 1024));
    e.labels = e.ids;
    packed.append(e);
    ctx.allocator().release_cached();
    const int64_t before = ctx.allocator().stats().current_bytes;
    ctx.allocator().reset_peak();
    for (int64_t step = 1; step <= 2; ++step) {
      parameters.zero_gradients(ctx);
      Tape tape = ops::make_tape(ctx);
      TapeScope recording(ctx, &tape);
      const SequenceLoss loss = sequence_loss(ctx, *model, packed, 1, r.loss);
      const Tensor seed = ctx.empty({1}, DType::kF32);
      ops::fill(ctx, seed, 1);
      tape.backward(ctx, loss.loss, seed);
      parameters.step(ctx, {}, 1e-4, 1 / parameters.gradient_norm(ctx), step);
      target->values_changed();
    }
    const AllocatorStats stats = ctx.allocator().stats();
    return {stats.peak_bytes - before, stats.reserved_bytes};
  }
};

TEST_F(MemoryPlanTest, Plans_are_what_the_real_step_takes) {
  for (const Kind kind : {Kind::kLora, Kind::kDora, Kind::kFull})
    for (const DType dtype : {DType::kBF16, DType::kF32})
      for (const int64_t group : {0, 1, 3}) {
        SCOPED_TRACE(fmt::format("kind {}, {}, group {}", static_cast<int>(kind), name_of(dtype), group));
        const PlanRequest r = request(kind, dtype, group);
        const MemoryPlan plan = plan_training(*checkpoint, r);
        const Measured real = measure(r);
        EXPECT_NEAR(static_cast<double>(plan.activations), static_cast<double>(real.activations),
                    0.01 * static_cast<double>(real.activations));
        const auto parameters = static_cast<double>(plan.total - plan.weights);
        EXPECT_GE(parameters, 0.97 * static_cast<double>(real.total));
        if (kind != Kind::kFull) {  // there the values beside their flat copies may be the peak
          EXPECT_LE(parameters, 1.05 * static_cast<double>(real.total));
          EXPECT_NEAR(static_cast<double>(plan.weights), 3.41e6 * static_cast<double>(size_of(dtype)),
                      0.15 * static_cast<double>(plan.weights));
        }
      }
}

TEST_F(MemoryPlanTest, A_gpu_of_another_machine_has_plans) {
  for (const Kind kind : {Kind::kLora, Kind::kFull}) {
    PlanRequest r = request(kind, DType::kBF16, 0);
    r.device = {DeviceKind::kCuda, 0};
    EXPECT_GT(plan_training(*checkpoint, r).activations, 0);
    EXPECT_GT(plan_inference(*checkpoint, r).total, 0);
  }
}

TEST_F(MemoryPlanTest, Recomputation_takes_less) {
  const int64_t plain = plan_training(*checkpoint, request(Kind::kLora, DType::kBF16, 0)).activations;
  const int64_t blocks = plan_training(*checkpoint, request(Kind::kLora, DType::kBF16, 1)).activations;
  EXPECT_LT(blocks, plain * 3 / 4);
}

TEST_F(MemoryPlanTest, A_batch_is_cut_before_blocks_are_computed_again) {
  PlanRequest r = request(Kind::kLora, DType::kBF16, 0);
  const auto total = [&](int64_t sequences, int64_t group) {
    r.sequences = sequences;
    r.loss.recompute_group = group;
    return plan_training(*checkpoint, r).total;
  };
  const int64_t six = total(6, 0), three = total(3, 0), one = total(1, 0), least = total(1, 1);
  ASSERT_LT(least, one);
  ASSERT_LT(one, three);
  ASSERT_LT(three, six);
  r.sequences = 6;
  const auto chosen = [&](int64_t free) { return choose_step(*checkpoint, r, free); };
  EXPECT_EQ(chosen(six).batch_size, 6);
  EXPECT_EQ(chosen(six - 1).batch_size, 3);
  EXPECT_EQ(chosen(six - 1).recompute_group, 0);
  EXPECT_EQ(chosen(one).batch_size, 1);
  EXPECT_EQ(chosen(one).recompute_group, 0);
  EXPECT_EQ(chosen(one - 1).recompute_group, 1);
  EXPECT_EQ(choose_step(*checkpoint, r, one - 1, 3).recompute_group, 3);
  EXPECT_TRUE(chosen(least).fits);
  EXPECT_FALSE(chosen(least - 1).fits);
}

TEST_F(MemoryPlanTest, Generation_takes_weights_and_cache) {
  PlanRequest r = request(Kind::kLora, DType::kBF16, 0);
  r.tokens = 640;
  const MemoryPlan plan = plan_inference(*checkpoint, r);
  EXPECT_EQ(plan.parameters, 4 * 2 * 10 * 64 * 2 * 64 * 2);  // layers, k and v, pages, tokens, heads, d, bytes
  EXPECT_GT(plan.activations, 0);
  EXPECT_GE(plan.total, plan.weights + plan.parameters + plan.activations);
}

}  // namespace
}  // namespace pmetal::train
