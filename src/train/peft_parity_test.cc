// Against PEFT (fixtures/lora): logits with the adapter, merged weights and logits, first gradients, five AdamW steps,
// final weights; full fine-tuning steps; and that what we write is what PEFT wrote.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "adapters/adapter.h"
#include "base/file.h"
#include "base/testing.h"
#include "formats/json.h"
#include "infer/reference_testing.h"
#include "models/checkpoint.h"
#include "nn/padded_batch.h"
#include "ops/head_loss.h"
#include "train/targets.h"

namespace pmetal {
namespace {

namespace ts = testing_support;
using formats::SafetensorsFile;
using namespace reference;

fs::path fixtures() { return ts::shared_dir().empty() ? ts::data_dir() : ts::shared_dir() / "fixtures"; }

bool has_family(const std::string& model) {
  const auto config = formats::read_json(fixtures() / "models" / model / "config.json");
  for (const models::Family* f : models::families())
    for (std::string_view t : f->model_types)
      if (t == config["model_type"].get<std::string>()) return true;
  return false;
}

std::vector<fs::path> cases(bool full) {
  std::vector<fs::path> all;
  for (const fs::directory_entry& e : fs::directory_iterator(fixtures() / "lora")) {
    const bool is_full = e.path().filename().string().find("-full-") != std::string::npos;
    if (is_full == full && has_family(formats::read_json(e.path() / "expected.json")["base"])) all.push_back(e.path());
  }
  std::sort(all.begin(), all.end());
  return all;
}

struct Base {
  Context ctx = test_context();
  fs::path folder;
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Model> model;
  nn::PaddedBatch batch, scored;  // for logits, for the loss
  std::vector<int64_t> ids, mask, labels;
  int64_t rows = 0, columns = 0;

  explicit Base(const fs::path& c, bool training) {
    folder = fixtures() / "models" / formats::read_json(c / "expected.json")["base"].get<std::string>();
    checkpoint = models::Checkpoint::open(folder.string());
    model = models::build(checkpoint->config(), checkpoint->source());
    models::load_weights(ctx, *model, *checkpoint, {.dtype = DType::kF32, .for_training = training});
    const SafetensorsFile e = SafetensorsFile::open(folder / "expected.safetensors");
    ids = values<int64_t>(e, "input_ids"), mask = values<int64_t>(e, "attention_mask"),
    labels = values<int64_t>(e, "labels");
    rows = e.at("input_ids").shape[0], columns = e.at("input_ids").shape[1];
    batch = nn::make_padded_batch(ctx, rows, columns, ids, mask, {});
    scored = nn::make_padded_batch(ctx, rows, columns, ids, mask, labels);
  }
  double logits_error(const SafetensorsFile& expected, const std::string& name) {
    const Tensor z = models::logits(ctx, *model, models::forward(ctx, *model, batch.batch));
    const std::vector<float> want = values<float>(expected, name), got = floats(z);
    double worst = 0;
    const int64_t v = z.dim(1);
    for (size_t i = 0; i < batch.row_of.size(); ++i)
      for (int64_t j = 0; j < v; ++j)
        worst = std::max(worst, std::fabs(double{got[i * static_cast<size_t>(v) + static_cast<size_t>(j)]} -
                                          want[static_cast<size_t>(batch.row_of[i] * v + j)]));
    return worst;
  }
  // forward, and backward into the leaves when a tape is given
  double loss(bool backward) {
    Tape tape = ops::make_tape();
    TapeScope recording(ctx, backward ? &tape : nullptr);
    const Shape n{static_cast<int64_t>(scored.labels.size())};
    const std::vector<float> scale(scored.labels.size(), 1.f / static_cast<float>(scored.labels.size()));
    const Tensor hidden = models::forward(ctx, *model, scored.batch);
    const ops::HeadLoss l = models::loss(
        ctx, *model,
        ops::gather_rows(ctx, hidden, ops::to_device(ctx, host_tensor<int32_t>(scored.label_rows, n, DType::kI32))),
        ops::to_device(ctx, host_tensor<int32_t>(scored.labels, n, DType::kI32)),
        ops::to_device(ctx, host_tensor<float>(scale, n, DType::kF32)));
    const float one = 1;
    if (backward)
      tape.backward(ctx, l.loss, ops::to_device(ctx, host_tensor<float>(std::span(&one, 1), Shape{1}, DType::kF32)));
    return ops::item(ctx, l.loss);
  }
};

// PEFT's name of a live parameter: the adapter is called "default"
std::string live_name(std::string key) {
  const std::string module = key.substr(0, key.rfind('.'));
  for (const char* part : {".lora_A", ".lora_B"})
    if (module.ends_with(part)) return module + ".default" + key.substr(key.rfind('.'));
  if (key.ends_with(".lora_magnitude_vector")) return key + ".default.weight";
  if (key.ends_with(".base_layer.bias")) return key;
  return module + ".modules_to_save.default" + key.substr(key.rfind('.'));
}

std::string name_of_case(const testing::TestParamInfo<fs::path>& info) {
  std::string name = info.param.filename().string();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

class PeftParity : public testing::TestWithParam<fs::path> {};

TEST_P(PeftParity, Adapter_and_merged_logits_equal_the_reference) {
  const SafetensorsFile expected = SafetensorsFile::open(GetParam() / "expected.safetensors");
  Base base(GetParam(), false);
  const auto adapter = adapters::Adapter::load(base.ctx, *base.model, GetParam());
  adapter->attach(*base.model, 0);
  adapters::prepare_training(base.ctx, *base.model, *adapter, 0);
  EXPECT_LE(base.logits_error(expected, "logits"), 1e-4);
  adapter->detach(*base.model, 0);
  if (!expected.find("merged.logits")) return;  // an adapter with a bias of its own cannot always be merged
  bool mergeable = true;
  struct Check final : models::ParameterVisitor {
    const adapters::Adapter& a;
    bool& ok;
    Check(const adapters::Adapter& adapter, bool& flag) : a(adapter), ok(flag) {}
    void on(nn::Linear& l) override { ok &= !a.adds_bias(l.name()) || l.has_bias(); }
    void on(nn::Embedding&) override {}
    void on(nn::Parameter&) override {}
  } check(*adapter, mergeable);
  base.model->visit(check);
  ASSERT_TRUE(mergeable);
  adapters::merge(base.ctx, *base.model, *adapter);
  EXPECT_LE(base.logits_error(expected, "merged.logits"), 1e-4);
}

TEST_P(PeftParity, Five_steps_give_the_losses_gradients_and_weights_of_the_reference) {
  const SafetensorsFile expected = SafetensorsFile::open(GetParam() / "expected.safetensors");
  Base base(GetParam(), false);
  const auto adapter = adapters::Adapter::load(base.ctx, *base.model, GetParam());
  adapter->attach(*base.model, 0);
  adapters::prepare_training(base.ctx, *base.model, *adapter, 0);
  std::vector<train::Trainable> trainables;
  for (const adapters::AdapterParameter& p : adapter->parameters()) trainables.push_back({p.key, p.value});
  train::FlatParameters parameters(base.ctx, trainables);
  const std::vector<double> losses = values<double>(expected, "losses");
  for (size_t step = 0; step < losses.size(); ++step) {
    parameters.zero_gradients(base.ctx);
    EXPECT_NEAR(base.loss(true), losses[step], 1e-5) << "step " << step;
    for (const train::FlatParameters::Item& item : parameters.items()) {
      const formats::TensorView* g = step == 0 ? expected.find("grad0." + live_name(item.key)) : nullptr;
      if (!g) continue;
      EXPECT_LE(compare(floats(parameters.gradient(item)), values<float>(expected, g->name)).relative(), 1e-4)
          << g->name;
    }
    if (step + 1 == losses.size()) break;
    parameters.step(base.ctx, {}, 1e-3, 1, static_cast<int64_t>(step) + 1);
    adapter->refresh();
  }
  int compared = 0;
  for (const train::FlatParameters::Item& item : parameters.items()) {
    const std::string name = "final." + live_name(item.key);
    if (!expected.find(name)) continue;
    // Where a gradient cancels to the size of Adam's epsilon, the order of summation decides up to a tenth of a
    // step (1e-3): a head that is saved whole has some such entries, of rare tokens.
    const std::vector<float> got = floats(parameters.master(item)), want = values<float>(expected, name);
    int64_t beyond = 0;
    for (size_t i = 0; i < want.size(); ++i) beyond += std::fabs(got[i] - want[i]) > 1e-5f;
    EXPECT_LE(compare(got, want).worst, item.key.find("lora_") == std::string::npos ? 1e-4 : 1e-5) << name;
    EXPECT_LE(beyond, item.key.find("lora_") == std::string::npos ? static_cast<int64_t>(want.size()) / 1000 : 0)
        << name;
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

TEST_P(PeftParity, What_we_write_has_the_names_shapes_and_keys_of_the_reference) {
  Base base(GetParam(), false);
  const auto adapter = adapters::Adapter::load(base.ctx, *base.model, GetParam());
  const fs::path out = ts::scratch_dir("peft");
  adapter->save(out);
  const SafetensorsFile want = SafetensorsFile::open(GetParam() / "adapter_model.safetensors");
  const SafetensorsFile got = SafetensorsFile::open(out / "adapter_model.safetensors");
  ASSERT_EQ(got.tensors().size(), want.tensors().size());
  for (const formats::TensorView& t : want.tensors()) {
    EXPECT_EQ(got.at(t.name).shape, t.shape) << t.name;
    EXPECT_EQ(values<float>(got, t.name), values<float>(want, t.name)) << t.name;
  }
  const auto a = formats::read_json(GetParam() / "adapter_config.json"),
             b = formats::read_json(out / "adapter_config.json");
  for (const auto& [key, value] : b.items()) {
    ASSERT_TRUE(a.contains(key)) << key;
    if (key == "peft_version") continue;
    if (key == "target_modules" && value.is_array()) {
      const std::set<std::string> x = a[key].get<std::set<std::string>>(), y = value.get<std::set<std::string>>();
      EXPECT_EQ(x, y);
      continue;
    }
    EXPECT_EQ(a[key], value) << key;
  }
  fs::remove_all(out);
}

INSTANTIATE_TEST_SUITE_P(Reference, PeftParity, testing::ValuesIn(cases(false)), name_of_case);

class FullParity : public testing::TestWithParam<fs::path> {};

TEST_P(FullParity, Five_steps_of_all_parameters_equal_the_reference) {
  const SafetensorsFile expected = SafetensorsFile::open(GetParam() / "expected.safetensors");
  const bool clips = formats::read_json(GetParam() / "expected.json")["variant"] == "clip";
  const std::vector<double> norms =
      formats::read_json(GetParam() / "expected.json")["grad_norms"].get<std::vector<double>>();
  Base base(GetParam(), true);
  std::vector<train::Trainable> all = train::all_parameters(*base.model);
  // the recipes are in expected.json: plain decays everything by 0.01, clip only matrices by 0.1
  if (!clips)
    for (train::Trainable& t : all) t.decays = true;
  train::FlatParameters parameters(base.ctx, all);
  train::AdamWOptions adamw;
  if (clips) adamw.beta2 = 0.95, adamw.weight_decay = 0.1;
  const std::vector<double> losses = values<double>(expected, "losses");
  for (size_t step = 0; step < losses.size(); ++step) {
    parameters.zero_gradients(base.ctx);
    EXPECT_NEAR(base.loss(true), losses[step], 1e-5) << "step " << step;
    if (step + 1 == losses.size()) break;
    const double norm = parameters.gradient_norm(base.ctx);
    EXPECT_NEAR(norm, norms[step], 1e-4 * norms[step]);
    const double scale = clips ? std::min(1.0, 0.5 / (norm + 1e-6)) : 1;
    const double lr = clips ? 1e-3 * static_cast<double>(step + 1) / 5 : 1e-3;
    parameters.step(base.ctx, adamw, lr, scale, static_cast<int64_t>(step) + 1);
  }
  for (const train::FlatParameters::Item& item : parameters.items())
    if (expected.find("final." + item.key)) {
      EXPECT_LE(compare(floats(parameters.master(item)), values<float>(expected, "final." + item.key)).worst,
                base.ctx.device().is_cpu() ? 1e-5 : 2e-5)  // another order of summation on a GPU
          << item.key;
    }
}

INSTANTIATE_TEST_SUITE_P(Reference, FullParity, testing::ValuesIn(cases(true)), name_of_case);

}  // namespace
}  // namespace pmetal
