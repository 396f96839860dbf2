// Decode steps through the runner against the same steps kernel by kernel: on a device that records, replays must give
// the bits of the kernels one by one. In f32, where no kernel looks at the reach of the page tables. Runs where
// PMETAL_TEST_DEVICE says.
#include "infer/step_runner.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/rng.h"
#include "base/testing.h"
#include "infer/kv.h"
#include "infer/reference_testing.h"
#include "models/checkpoint.h"

namespace pmetal::infer {
namespace {

namespace ts = testing_support;

class StepRunnerParity : public testing::Test {
 protected:
  void load(DType dtype) {
    const auto checkpoint = models::Checkpoint::open((ts::data_dir() / "models" / "qwen3").string());
    model = models::build(checkpoint->config(), checkpoint->source());
    models::load_weights(ctx, *model, *checkpoint, {.dtype = dtype});
  }
  // logits of 150 steps of three sequences, the second of which pauses and the third of which starts late
  std::vector<std::vector<float>> run(bool through_runner) {
    PhiloxStream random(3, RngPurpose::kSynthetic);
    nn::KvStore store = make_kv_store(ctx, *model, 32);
    StepRunner runner(ctx, *model, store);
    std::vector<nn::SequenceState> states;
    for (int i = 0; i < 3; ++i) states.emplace_back(store);
    std::vector<std::vector<float>> all;
    for (int t = 0; t < 150; ++t) {
      std::vector<int32_t> ids;
      for (int i = 0; i < 8; ++i) ids.push_back(static_cast<int32_t>(random.below(317)));
      std::vector<nn::StepSequence> step;
      for (size_t i = 0; i < 3; ++i) {
        if ((i == 1 && t % 7 > 3) || (i == 2 && t < 20)) continue;
        const size_t n = t == 0 || (i == 2 && t == 20) ? 6 : 1;
        step.push_back({.state = &states[i], .tokens = std::span(ids).subspan(i == 2 ? 0 : i, n)});
      }
      if (through_runner) {
        const StepRunner::Result r = runner.run(step);
        std::vector<float> rows = reference::floats(r.logits);
        rows.resize(step.size() * static_cast<size_t>(model->info().vocabulary));
        for (size_t i = 0; i < step.size(); ++i) EXPECT_EQ(r.first_row[i], static_cast<int32_t>(i));
        all.push_back(std::move(rows));
      } else {
        const nn::KvStore::Step s = store.begin_step(ctx, step);
        all.push_back(reference::floats(models::logits(ctx, *model, models::forward(ctx, *model, s.batch), &s.batch)));
      }
    }
    return all;
  }

  Context ctx = reference::test_context();
  std::unique_ptr<models::Model> model;
};

// alone, beside one other, and among six with prompts coming in
TEST_F(StepRunnerParity, Invariant_rows_have_the_bits_they_have_alone) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    load(dtype);
    std::vector<std::vector<float>> alone;
    for (const size_t mates : {0U, 1U, 5U, 11U}) {
      PhiloxStream own(5, RngPurpose::kSynthetic), other(6, RngPurpose::kSynthetic);
      const auto draw = [](PhiloxStream& random, size_t n) {
        std::vector<int32_t> ids;
        for (size_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(random.below(317)));
        return ids;
      };
      nn::KvStore store = make_kv_store(ctx, *model, 64);
      StepRunner runner(ctx, *model, store, true);
      std::vector<nn::SequenceState> states;
      for (size_t i = 0; i <= mates; ++i) states.emplace_back(store);
      for (size_t t = 0; t < 60; ++t) {
        std::vector<std::vector<int32_t>> tokens{draw(own, t == 0 ? 70 : 1)};
        for (size_t i = 1; i <= mates; ++i) tokens.push_back(draw(other, t % 8 == i ? 5 : 1));
        std::vector<nn::StepSequence> step;
        const size_t place = t % (mates + 1);  // where in the step
        for (size_t i = 1; i <= mates; ++i)
          step.push_back({.state = &states[i], .tokens = tokens[i], .no_rows = t % 8 == i && t % 2 == 0});
        step.insert(step.begin() + static_cast<std::ptrdiff_t>(place), {.state = &states[0], .tokens = tokens[0]});
        const StepRunner::Result r = runner.run(step);
        int32_t rows = 0;
        for (size_t i = 0; i < step.size(); ++i) EXPECT_EQ(r.first_row[i], step[i].no_rows ? -1 : rows++);
        const int64_t vocabulary = r.logits.dim(1);
        const std::vector<float> all = reference::floats(r.logits);
        const auto at = all.begin() + r.first_row[place] * vocabulary;
        std::vector<float> row(at, at + vocabulary);
        if (mates == 0)
          alone.push_back(std::move(row));
        else
          EXPECT_EQ(row, alone[t]) << name_of(dtype) << ", " << mates << " mates, step " << t;
      }
    }
  }
}

TEST_F(StepRunnerParity, F32_bits_are_those_of_kernels_one_by_one) {
  load(DType::kF32);
  const auto want = run(false), got = run(true), again = run(true);
  for (size_t t = 0; t < want.size(); ++t) {
    EXPECT_EQ(got[t], want[t]) << "step " << t;
    EXPECT_EQ(again[t], got[t]) << "step " << t;
  }
}

TEST_F(StepRunnerParity, Bf16_stays_within_its_rounding) {
  load(DType::kBF16);
  const auto want = run(false), got = run(true), again = run(true);
  for (size_t t = 0; t < want.size(); ++t) {
    EXPECT_LE(reference::compare(got[t], want[t]).relative_norm(), 2e-2) << "step " << t;
    EXPECT_EQ(again[t], got[t]) << "step " << t;
  }
}

// A shape whose steps of one token a GPU runs as one kernel (ops/decode_blocks.h), against all tokens in one step.
TEST_F(StepRunnerParity, Tokens_one_by_one_as_all_at_once) {
  const std::filesystem::path folder = ts::scratch_dir("step-runner");
  std::ofstream(folder / "wide.json") << R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 512, "intermediate_size": 768, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 317, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": false,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16"})";
  const auto checkpoint = models::Checkpoint::open("random:" + (folder / "wide.json").string());
  model = models::build(checkpoint->config(), checkpoint->source());
  models::load_weights(ctx, *model, *checkpoint, {.dtype = DType::kBF16});
  std::filesystem::remove_all(folder);
  PhiloxStream random(4, RngPurpose::kSynthetic);
  std::vector<int32_t> ids;
  for (int i = 0; i < 200; ++i) ids.push_back(static_cast<int32_t>(random.below(317)));
  nn::KvStore store = make_kv_store(ctx, *model, 16);
  StepRunner runner(ctx, *model, store);
  nn::SequenceState at_once(store), one_by_one(store);
  const nn::StepSequence whole[] = {{.state = &at_once, .tokens = ids, .all_rows = true}};
  const std::vector<float> want = reference::floats(runner.run(whole).logits);
  for (size_t t = 0; t < ids.size(); ++t) {
    const nn::StepSequence one[] = {{.state = &one_by_one, .tokens = std::span(ids).subspan(t, 1)}};
    const std::vector<float> got = reference::floats(runner.run(one).logits);
    EXPECT_LE(reference::compare(got, std::span(want).subspan(t * 317, 317)).relative_norm(), 3e-2) << "token " << t;
  }
}

}  // namespace
}  // namespace pmetal::infer
