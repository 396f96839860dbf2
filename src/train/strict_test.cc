// With a context that refuses plain kernels: what training and generation run on the CPU has a tuned kernel, for each
// kind of training and in both types.
#include <gtest/gtest.h>

#include "base/testing.h"
#include "infer/engine.h"
#include "train/sequence_loss.h"
#include "train/targets.h"

namespace pmetal::train {
namespace {

struct Setting {
  const char* name;
  bool full = false, dora = false;
  double dropout = 0, smoothing = 0;
  float noise = 0;
  int64_t recompute = 0;
  std::vector<std::string> whole = {};  // modules_to_save
  adapters::BiasTraining bias = adapters::BiasTraining::kNone;
};

class Strict : public ::testing::TestWithParam<std::string> {
 protected:
  Context ctx{std::make_shared<ThreadPool>(2)};
  std::unique_ptr<models::Checkpoint> checkpoint =
      models::Checkpoint::open((testing_support::data_dir() / "models" / GetParam()).string());
  std::unique_ptr<models::Model> model = models::build(checkpoint->config(), checkpoint->source());

  void SetUp() override { ctx.set_strict(true); }

  data::PackedSequence sequence() const {
    data::PackedSequence packed;
    for (int32_t length : {9, 70}) {
      data::Example e;
      for (int32_t i = 0; i < length; ++i) e.ids.push_back((i * 37 + length) % 97);
      e.labels = e.ids;
      packed.append(e);
    }
    return packed;
  }

  double step(std::vector<Trainable> trainables, const Setting& s) {
    FlatParameters parameters(ctx, std::move(trainables));
    const data::PackedSequence packed = sequence();
    LossOptions options;
    options.recompute_group = s.recompute;
    options.embedding_noise = s.noise;
    options.head.label_smoothing = static_cast<float>(s.smoothing);
    options.draws = s.dropout > 0;
    parameters.zero_gradients(ctx);
    Tape tape = ops::make_tape();
    SequenceLoss loss;
    {
      TapeScope recording(ctx, &tape);
      loss = sequence_loss(ctx, *model, packed, 1.0 / static_cast<double>(packed.n_learned()), options);
      Tensor seed = ctx.empty({1}, DType::kF32);
      ops::fill(ctx, seed, 1);
      tape.backward(ctx, loss.loss, seed);
    }
    const double norm = parameters.gradient_norm(ctx);
    parameters.step(ctx, {}, 1e-4, 1, 1);
    return norm;
  }

  void train(const Setting& s, DType dtype) {
    models::load_weights(ctx, *model, *checkpoint, {.dtype = dtype, .for_training = s.full});
    if (s.full) {
      EXPECT_GT(step(all_parameters(*model), s), 0) << s.name;
      return;
    }
    adapters::PeftConfig config;
    config.r = 4;
    config.dropout = s.dropout;
    config.use_dora = s.dora;
    config.bias = s.bias;
    config.modules_to_save = s.whole;
    config.targets.all_linear = true;
    const auto adapter = adapters::Adapter::create(ctx, *model, config, 5);
    adapter->attach(*model, 0);
    const auto target = make_adapter_target(*model, adapter);
    EXPECT_GT(step(target->trainables(), s), 0) << s.name;
    target->values_changed();
    EXPECT_GT(sequence_loss(ctx, *model, sequence(), 1).n_learned, 0);  // evaluation
    adapter->detach(*model, 0);
  }
};

TEST_P(Strict, Training_takes_tuned_kernels_alone) {
  const Setting settings[] = {
      {.name = "lora"},
      {.name = "lora, dropout, noise", .dropout = 0.1, .noise = 5},
      {.name = "lora, recomputed", .recompute = 1},
      {.name = "lora, all biases", .bias = adapters::BiasTraining::kAll},
      {.name = "lora, smoothing", .smoothing = 0.1},
      {.name = "dora", .dora = true},
      {.name = "dora, dropout", .dora = true, .dropout = 0.1},
      {.name = "full", .full = true},
      {.name = "full, recomputed", .full = true, .recompute = 2},
  };
  for (const Setting& s : settings)
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(s.name);
      EXPECT_NO_THROW(train(s, dtype));
    }
}

TEST_P(Strict, Generation_takes_tuned_kernels_alone) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    models::load_weights(ctx, *model, *checkpoint, {.dtype = dtype});
    infer::Engine engine(ctx, *model, {.max_pages = 16, .eos_ids = {}});
    int tokens = 0;
    std::vector<std::unique_ptr<infer::Generation>> running;
    for (const int32_t first : {3, 5}) {
      infer::Request request;
      request.prompt = {first, 17, 100, 4};
      request.max_tokens = 3;
      running.push_back(engine.submit(request, [&](const infer::Update& u) { tokens += u.token.has_value(); }));
    }
    EXPECT_NO_THROW(engine.run());
    EXPECT_EQ(tokens, 6);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Strict, ::testing::Values("llama", "mistral", "qwen2", "qwen3"));

}  // namespace
}  // namespace pmetal::train
