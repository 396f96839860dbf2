// Adapters of the token table and of the head where PMETAL_TEST_DEVICE says: training and logits are those of the CPU,
// whose own are held against PEFT's rules in adapters/adapter_test.cc and tests/oracle.
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/safetensors.h"
#include "infer/reference_testing.h"
#include "train/train_testing.h"

namespace pmetal::train {
namespace {

using namespace testing;
using reference::compare;
using reference::floats;
using reference::test_context;

struct Loaded {
  Context ctx;
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Model> model;
  Loaded(Context context, DType dtype, const std::string& name)
      : ctx(std::move(context)),
        checkpoint(models::Checkpoint::open((ts::data_dir() / "models" / name).string())),
        model(models::build(checkpoint->config(), checkpoint->source())) {
    models::load_weights(ctx, *model, *checkpoint, {.dtype = dtype});
  }
  std::vector<float> logits() {
    const std::vector<int32_t> tokens = {5, 9, 200, 31, 7, 7, 0, 250};
    const nn::SequenceInput one[] = {{.tokens = tokens}};
    const nn::Batch batch = nn::make_batch(ctx, one);
    return floats(models::logits(ctx, *model, models::forward(ctx, *model, batch), &batch));
  }
};

Context cpu_context() { return Context(std::make_shared<ThreadPool>(2)); }

struct Trained {
  std::vector<double> losses, norms;
  std::vector<float> logits;
};

Trained trained(Context context, DType dtype, const std::string& name, const adapters::PeftConfig& config) {
  Loaded m(std::move(context), dtype, name);
  const auto adapter = adapters::Adapter::create(m.ctx, *m.model, config, 7);
  adapter->attach(*m.model, 0);
  adapters::prepare_training(m.ctx, *m.model, *adapter, 0);
  const auto target = make_adapter_target(*m.model, adapter);
  const auto loader = data::make_loader(random_examples(40, 300), "test", {.seed = 3, .max_length = 48, .epochs = 0});
  TrainObserver silent;
  TrainOptions options = steps(5);
  options.schedule.total = options.total_steps = 5;
  options.schedule.base = 5e-3;
  Trainer trainer(m.ctx, *target, *loader, options, silent);
  Trained t;
  std::vector<data::PackedSequence> batch(2);
  for (int step = 0; step < 5; ++step) {
    for (data::PackedSequence& s : batch) EXPECT_TRUE(loader->next(s));
    const StepReport r = trainer.step(batch);
    t.losses.push_back(r.loss);
    t.norms.push_back(r.grad_norm);
  }
  t.logits = m.logits();
  return t;
}

TEST(EmbeddingParity, Token_tables_and_heads_train_as_on_the_cpu) {
  for (const auto& [name, targets, whole] :
       {std::tuple<std::string, std::vector<std::string>, std::vector<std::string>>{
            "llama", {"embed_tokens", "lm_head", "q_proj"}, {}},
        {"llama", {"embed_tokens", "q_proj", "down_proj"}, {"lm_head"}},
        {"llama", {"lm_head", "v_proj"}, {"embed_tokens"}},
        {"qwen3", {"embed_tokens", "q_proj"}, {}},
        {"qwen3", {"q_proj"}, {"embed_tokens", "lm_head"}}})
    for (const bool dora : {false, true})
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        adapters::PeftConfig config;
        config.r = 3;
        config.alpha = 5;
        config.use_rslora = !dora;
        config.use_dora = dora;
        config.targets.names = targets;
        config.modules_to_save = whole;
        SCOPED_TRACE(fmt::format("{} {} whole {}{} {}", name, fmt::join(targets, " "), fmt::join(whole, " "),
                                 dora ? " dora" : "", name_of(dtype)));
        const Trained want = trained(cpu_context(), dtype, name, config),
                      got = trained(test_context(), dtype, name, config);
        const double tolerance = dtype == DType::kF32 ? 1e-4 : 2e-2;
        for (size_t i = 0; i < want.losses.size(); ++i) {
          EXPECT_NEAR(got.losses[i], want.losses[i], tolerance * want.losses[i]) << "step " << i + 1;
          EXPECT_NEAR(got.norms[i], want.norms[i], 10 * tolerance * want.norms[i]) << "step " << i + 1;
        }
        EXPECT_LT(want.losses.back(), want.losses.front());
        EXPECT_LE(compare(got.logits, want.logits).relative_norm(), 10 * tolerance);
      }
}

TEST(EmbeddingParity, Trained_tokens_act_as_on_the_cpu) {
  for (const std::string name : {"llama", "qwen3"}) {
    SCOPED_TRACE(name);
    Loaded cpu(cpu_context(), DType::kF32, name), device(test_context(), DType::kF32, name);
    const std::vector<float> before = cpu.logits();
    const fs::path folder = ts::scratch_dir("tokens");
    const int64_t hidden = cpu.model->info().hidden;
    PhiloxStream random(3, RngPurpose::kSynthetic);
    std::vector<float> rows(static_cast<size_t>(2 * hidden));
    for (float& v : rows) v = static_cast<float>(random.normal());
    const std::string key = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta";
    formats::SafetensorsWriter file(folder / "adapter_model.safetensors", {{key, DType::kF32, {2, hidden}}});
    file.write(key, std::as_bytes(std::span(rows)));
    file.finish();
    const nlohmann::json config = {{"peft_type", "LORA"},
                                   {"r", 4},
                                   {"lora_alpha", 4},
                                   {"target_modules", nlohmann::json::array({"q_proj"})},
                                   {"trainable_token_indices", {{"embed_tokens", {7, 200}}}}};
    write_file_atomic(folder / "adapter_config.json", config.dump());
    for (Loaded* m : {&cpu, &device}) adapters::Adapter::load(m->ctx, *m->model, folder)->attach(*m->model, 0);
    const std::vector<float> want = cpu.logits(), got = device.logits();
    EXPECT_GT(compare(want, before).relative_norm(), 1e-3);
    EXPECT_LE(compare(got, want).relative_norm(), 1e-5);
    fs::remove_all(folder);
  }
}

}  // namespace
}  // namespace pmetal::train
