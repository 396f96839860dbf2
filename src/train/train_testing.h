// For the tests of the loop: a tiny reference model with an adapter, and random documents.
#pragma once

#include <gtest/gtest.h>

#include "base/rng.h"
#include "base/testing.h"
#include "ops/device.h"
#include "train/targets.h"

namespace pmetal::train::testing {

namespace ts = testing_support;

inline std::vector<data::Example> random_examples(int64_t n, int64_t vocabulary) {
  PhiloxStream random(7, RngPurpose::kSynthetic);
  std::vector<data::Example> all;
  for (int64_t i = 0; i < n; ++i) {
    data::Example e;
    const int64_t length = 3 + static_cast<int64_t>(random.below(20));
    for (int64_t t = 0; t < length; ++t) {
      e.ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary))));
      e.labels.push_back(random.below(3) ? e.ids.back() : data::kIgnore);
    }
    all.push_back(std::move(e));
  }
  return all;
}

struct TinyRun {
  Context ctx;
  std::unique_ptr<models::Checkpoint> checkpoint =
      models::Checkpoint::open((ts::data_dir() / "models" / "qwen3").string());
  std::unique_ptr<models::Model> model = models::build(checkpoint->config(), checkpoint->source());
  std::unique_ptr<TrainTarget> target;
  std::unique_ptr<data::Loader> loader;
  TrainObserver silent;
  std::unique_ptr<Trainer> trainer;

  TinyRun(int threads, DType dtype, bool dora, TrainOptions options, Device device = kCpu, double dropout = 0.2)
      : ctx(ops::make_context(device, std::make_shared<ThreadPool>(threads))) {
    models::load_weights(ctx, *model, *checkpoint, {.dtype = dtype});
    adapters::PeftConfig config;
    config.r = 4;
    config.dropout = dropout;
    config.use_dora = dora;
    config.targets.all_linear = true;
    const auto adapter = adapters::Adapter::create(ctx, *model, config, 5);
    adapter->attach(*model, 0);
    adapters::prepare_training(ctx, *model, *adapter, 0);
    target = make_adapter_target(*model, adapter);
    loader = data::make_loader(random_examples(40, 300), "test", {.seed = 3, .max_length = 48, .epochs = 0});
    options.schedule.total = options.total_steps = 8;
    options.schedule.base = 1e-2;
    trainer = std::make_unique<Trainer>(ctx, *target, *loader, options, silent);
  }
  std::vector<float> masters() {
    std::vector<float> all;
    for (const FlatParameters::Item& item : trainer->parameters().items()) {
      const Tensor t = ops::host_copy(trainer->parameters().master(item));
      all.insert(all.end(), t.data<float>(), t.data<float>() + t.numel());
    }
    return all;
  }
};

inline TrainOptions steps(int64_t n, const fs::path& output = {}) {
  TrainOptions o;
  o.max_steps = n;
  o.accumulation = 2;
  o.output = output;
  o.save_steps = 3;
  o.config_text = R"({"lr": 1})";
  return o;
}

}  // namespace pmetal::train::testing
