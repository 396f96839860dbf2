// Every stored reference model of a family we have: logits, hidden states, loss, gradients and greedy tokens in f32
// against what the reference stack computed (fixtures/models; tolerances from its README).
#include <gtest/gtest.h>

#include <cmath>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/testing.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "infer/generate.h"
#include "infer/kv.h"
#include "infer/reference_testing.h"
#include "models/checkpoint.h"
#include "nn/padded_batch.h"
#include "ops/head_loss.h"

namespace pmetal {
namespace {

namespace ts = testing_support;
using namespace reference;

std::vector<fs::path> reference_models() {
  const fs::path root = ts::shared_dir().empty() ? ts::data_dir() / "models" : ts::shared_dir() / "fixtures" / "models";
  std::vector<fs::path> all;
  for (const fs::directory_entry& e : fs::directory_iterator(root)) {
    const auto config = formats::read_json(e.path() / "config.json");
    const std::string type = config["model_type"];
    for (const models::Family* f : models::families())
      for (std::string_view t : f->model_types)
        if (t == type && !config.contains("text_config")) all.push_back(e.path());
  }
  std::sort(all.begin(), all.end());
  return all;
}

struct Loaded {
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Model> model;
  Loaded(Context& ctx, const fs::path& folder, const std::string& config_file, DType dtype, bool training) {
    checkpoint = models::Checkpoint::open(folder.string());
    model = models::build(formats::read_json(folder / config_file), config_file);
    models::load_weights(ctx, *model, *checkpoint, {.dtype = dtype, .for_training = training});
  }
};

class Parity : public testing::TestWithParam<fs::path> {
 protected:
  Context ctx = test_context();
  SafetensorsFile expected = SafetensorsFile::open(GetParam() / "expected.safetensors");
  std::vector<int64_t> ids = values<int64_t>(expected, "input_ids"), mask = values<int64_t>(expected, "attention_mask"),
                       labels = values<int64_t>(expected, "labels");
  int64_t rows = expected.at("input_ids").shape[0], columns = expected.at("input_ids").shape[1];

  Tensor on_device(const Tensor& host) { return ops::to_device(ctx, host); }
  // expected rows of the kept positions of matrix row `only` (or all), in the order of the batch
  std::vector<float> kept_rows(const std::string& name, const nn::PaddedBatch& p, int64_t only = -1) {
    const std::vector<float> all = values<float>(expected, name);
    const int64_t n = expected.at(name).shape.back();
    std::vector<float> kept;
    for (int64_t at : p.row_of) {
      if (!p.kept[static_cast<size_t>(at)] || (only >= 0 && at / columns != only)) continue;
      const int64_t source = only >= 0 ? at % columns : at;
      kept.insert(kept.end(), all.begin() + source * n, all.begin() + (source + 1) * n);
    }
    return kept;
  }
  std::vector<float> got_rows(const Tensor& t, const nn::PaddedBatch& p, int64_t only = -1) {
    const std::vector<float> all = floats(t);
    const int64_t n = t.dim(1);
    std::vector<float> kept;
    for (size_t i = 0; i < p.row_of.size(); ++i) {
      if (!p.kept[static_cast<size_t>(p.row_of[i])] || (only >= 0 && p.row_of[i] / columns != only)) continue;
      kept.insert(kept.end(), all.begin() + static_cast<int64_t>(i) * n, all.begin() + static_cast<int64_t>(i + 1) * n);
    }
    return kept;
  }
};

TEST_P(Parity, Logits_and_hidden_states_equal_the_reference) {
  for (const char* config : {"config.json", "config_legacy.json"}) {
    SCOPED_TRACE(config);
    const Loaded m(ctx, GetParam(), config, DType::kF32, false);
    const nn::PaddedBatch p = nn::make_padded_batch(ctx, rows, columns, ids, mask, {});
    std::vector<Tensor> taps;
    models::ForwardOptions options;
    options.taps = &taps;
    const Tensor hidden = models::forward(ctx, *m.model, p.batch, options);
    EXPECT_LE(compare(got_rows(models::logits(ctx, *m.model, hidden), p), kept_rows("logits", p)).worst, 1e-4);
    EXPECT_LE(compare(got_rows(hidden, p), kept_rows("last_hidden_state", p)).worst, 1e-4);
    ASSERT_EQ(static_cast<int64_t>(taps.size()), m.model->info().layers + 1);
    for (size_t i = 0; i < taps.size(); ++i)
      EXPECT_LE(compare(got_rows(taps[i], p, 0), kept_rows(fmt::format("hidden.{}", i), p, 0)).worst, 1e-4)
          << "layer " << i;
  }
}

TEST_P(Parity, Bf16_logits_stay_close) {
  const Loaded m(ctx, GetParam(), "config.json", DType::kBF16, false);
  const nn::PaddedBatch p = nn::make_padded_batch(ctx, rows, columns, ids, mask, {});
  const Tensor z = models::logits(ctx, *m.model, models::forward(ctx, *m.model, p.batch));
  EXPECT_LE(compare(got_rows(z, p), kept_rows("logits", p)).relative_norm(), 2e-2);
}

TEST_P(Parity, Loss_and_gradients_equal_the_reference) {
  for (int64_t recompute_group : {0, 1, 2}) {
    const Loaded m(ctx, GetParam(), "config.json", DType::kF32, true);
    Leaves leaves;
    m.model->visit(leaves);
    const nn::PaddedBatch p = nn::make_padded_batch(ctx, rows, columns, ids, mask, labels);
    const Shape n{static_cast<int64_t>(p.labels.size())};
    Tape tape = ops::make_tape();
    TapeScope recording(ctx, &tape);
    models::ForwardOptions options;
    options.recompute_group = recompute_group;
    const Tensor hidden = models::forward(ctx, *m.model, p.batch, options);
    const models::Head head = m.model->head();
    const std::vector<float> scale(p.labels.size(), 1.f / static_cast<float>(p.labels.size()));
    const ops::HeadLoss loss = ops::head_loss(
        ctx, ops::gather_rows(ctx, hidden, on_device(host_tensor<int32_t>(p.label_rows, n, DType::kI32))), head.frozen,
        head.dense, on_device(host_tensor<int32_t>(p.labels, n, DType::kI32)),
        on_device(host_tensor<float>(scale, n, DType::kF32)));
    EXPECT_NEAR(ops::item(ctx, loss.loss), values<float>(expected, "loss")[0], 1e-5);
    const float one = 1;
    tape.backward(ctx, loss.loss, on_device(host_tensor<float>(std::span(&one, 1), Shape{1}, DType::kF32)));
    int compared = 0;
    for (const formats::TensorView& t : expected.tensors()) {
      if (!t.name.starts_with("grad.")) continue;
      const auto leaf = leaves.all.find(t.name.substr(5));
      ASSERT_NE(leaf, leaves.all.end()) << t.name;
      const Tensor& g = leaf->second.variable()->grad;
      ASSERT_TRUE(g.defined()) << t.name;
      EXPECT_LE(compare(floats(g), values<float>(expected, t.name)).relative(), 1e-4) << t.name;
      ++compared;
    }
    EXPECT_GT(compared, 0);
  }
}

TEST_P(Parity, Greedy_tokens_equal_the_reference) {
  const auto report = formats::read_json(GetParam() / "expected.json");
  const double gap = report["gen_min_top2_gap"];
  ASSERT_GT(gap, 2e-4) << "the stored gap is below the tolerance of logits";
  const Loaded m(ctx, GetParam(), "config.json", DType::kF32, false);
  std::vector<int32_t> prompt;
  for (int64_t id : values<int64_t>(expected, "gen.prompt")) prompt.push_back(static_cast<int32_t>(id));
  const std::vector<int64_t> want = values<int64_t>(expected, "gen.tokens");
  const std::vector<int32_t> got = infer::generate_greedy(ctx, *m.model, prompt, static_cast<int64_t>(want.size()));
  EXPECT_EQ(std::vector<int64_t>(got.begin(), got.end()), want);
}

TEST_P(Parity, Cached_steps_give_the_bits_of_one_pass) {
  const Loaded m(ctx, GetParam(), "config.json", DType::kF32, false);
  std::vector<int32_t> prompt;
  for (int64_t c = 0; c < columns; ++c) prompt.push_back(static_cast<int32_t>(ids[static_cast<size_t>(c)]));
  const auto run = [&](std::vector<size_t> cuts) {
    nn::KvStore store = infer::make_kv_store(ctx, *m.model, 4);
    nn::SequenceState state(store);
    std::vector<float> all;
    size_t at = 0;
    for (size_t n : cuts) {
      const nn::StepSequence s[] = {{.state = &state, .tokens = std::span(prompt).subspan(at, n), .all_rows = true}};
      const nn::KvStore::Step step = store.begin_step(ctx, s);
      const std::vector<float> z = floats(models::logits(ctx, *m.model, models::forward(ctx, *m.model, step.batch)));
      all.insert(all.end(), z.begin(), z.end());
      at += n;
    }
    return all;
  };
  if (GetParam().filename() == "llama_rope_dynamic") return;  // its frequencies depend on the length by definition
  const std::vector<float> whole = run({24});
  for (const std::vector<size_t>& cuts : {std::vector<size_t>{5, 1, 1, 9, 8}, std::vector<size_t>(24, 1)}) {
    if (ctx.device().is_cpu())
      EXPECT_EQ(whole, run(cuts));
    else
      EXPECT_LE(compare(run(cuts), whole).worst, 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(Reference, Parity, testing::ValuesIn(reference_models()), [](const auto& info) {
  std::string name = info.param.filename().string();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

}  // namespace
}  // namespace pmetal
