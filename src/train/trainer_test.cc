// The loop on a tiny reference model: resumed runs end in the bits of uninterrupted ones, with dropout, whatever the
// number of threads; accumulation is a token-weighted mean; packed and single documents give one loss; schedules.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/json.h"
#include "train/checkpoints.h"
#include "train/train_testing.h"

namespace pmetal::train {
namespace {

using namespace testing;

TEST(Trainer, Resumed_run_ends_in_the_bits_of_the_uninterrupted_one) {
  for (const auto& [dtype, dora] :
       {std::pair{DType::kF32, false}, std::pair{DType::kBF16, false}, std::pair{DType::kF32, true}}) {
    const fs::path out = ts::scratch_dir("resume");
    TinyRun whole(2, dtype, dora, steps(8));
    whole.trainer->run();
    TinyRun first(1, dtype, dora, steps(5, out));
    first.trainer->run();  // saves at step 3; what followed is lost, as after a kill
    TinyRun second(2, dtype, dora, steps(8, out));
    ASSERT_TRUE(second.trainer->resume());
    EXPECT_EQ(second.trainer->steps_done(), 3);
    second.trainer->run();
    EXPECT_EQ(whole.masters(), second.masters()) << name_of(dtype) << (dora ? " dora" : "");
    fs::remove_all(out);
  }
}

TEST(Trainer, Resume_under_another_configuration_is_refused_naming_the_difference) {
  const fs::path out = ts::scratch_dir("config");
  TinyRun first(1, DType::kF32, false, steps(3, out));
  first.trainer->run();
  TrainOptions other = steps(8, out);
  other.config_text = R"({"lr": 2})";
  TinyRun second(1, DType::kF32, false, other);
  try {
    second.trainer->resume();
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("lr was 1, is 2"), std::string::npos) << e.what();
  }
  fs::remove_all(out);
}

TEST(Trainer, A_failed_save_leaves_the_older_checkpoint) {
  const fs::path out = ts::scratch_dir("fault");
  TinyRun run(1, DType::kF32, false, steps(3, out));
  run.trainer->run();
  const auto before = read_text(out / "checkpoints" / "step_3" / "adapter_model.safetensors");
  fs::create_directories(out / "checkpoints" / "step_9.tmp-1-0");  // of a killed process
  TinyRun again(1, DType::kF32, false, steps(8, out));
  ASSERT_TRUE(again.trainer->resume());
  EXPECT_EQ(again.trainer->steps_done(), 3);
  EXPECT_EQ(read_text(out / "checkpoints" / "step_3" / "adapter_model.safetensors"), before);
  fs::remove_all(out);
}

TEST(Trainer, Gradients_do_not_depend_on_how_the_batch_is_cut) {
  TinyRun a(2, DType::kF32, false, steps(1)), b(2, DType::kF32, false, steps(1));
  std::vector<data::PackedSequence> sequences;
  data::PackedSequence one;
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(a.loader->next(one));
    sequences.push_back(one);
  }
  data::PackedSequence joined;
  for (const data::PackedSequence& s : sequences) joined.append(s);
  const StepReport x = a.trainer->step(sequences), y = b.trainer->step({joined});
  EXPECT_NEAR(x.loss, y.loss, 1e-6);
  EXPECT_NEAR(x.grad_norm, y.grad_norm, 1e-5 * x.grad_norm);
}

TEST(Trainer, Packed_documents_have_the_loss_and_gradients_of_single_ones) {
  TinyRun a(2, DType::kF32, false, steps(1)), b(2, DType::kF32, false, steps(1));
  data::PackedSequence packed;
  std::vector<data::PackedSequence> single;
  for (const data::Example& e : random_examples(12, 300)) {
    packed.append(e);
    single.emplace_back().append(e);
  }
  a.trainer->step({packed});
  b.trainer->step(single);
  for (const FlatParameters::Item& item : a.trainer->parameters().items()) {
    const Tensor x = a.trainer->parameters().gradient(item);
    for (const FlatParameters::Item& other : b.trainer->parameters().items()) {
      if (other.key != item.key) continue;
      const Tensor y = b.trainer->parameters().gradient(other);
      float largest = 0, worst = 0;
      for (int64_t i = 0; i < x.numel(); ++i) {
        largest = std::max(largest, std::fabs(y.data<float>()[i]));
        worst = std::max(worst, std::fabs(x.data<float>()[i] - y.data<float>()[i]));
      }
      EXPECT_LE(worst, 1e-5f * largest + 1e-9f) << item.key;
    }
  }
}

TEST(Trainer, Ten_steps_without_a_finite_loss_end_the_run) {
  TinyRun run(1, DType::kF32, false, steps(100));
  Tensor master = run.trainer->parameters().master(run.trainer->parameters().items()[0]);
  master.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(run.trainer->run(), Error);
}

class Recorder final : public TrainObserver {
 public:
  std::vector<StepReport> steps;
  std::vector<std::string> logs, warnings;
  std::vector<fs::path> best;
  std::function<void(const StepReport&)> then;
  void on_step(const StepReport& r) override {
    steps.push_back(r);
    if (then) then(r);
  }
  void on_log(const std::string& line) override { logs.push_back(line); }
  void on_warning(const std::string& line) override { warnings.push_back(line); }
  void on_best(const fs::path& folder) override { best.push_back(folder); }
};

TEST(Trainer, Control_file_steers_the_rate_saves_and_ends_the_run_normally) {
  const fs::path out = ts::scratch_dir("control");
  TrainOptions options = steps(100, out);
  options.save_steps = 1000;
  options.schedule.kind = ScheduleKind::kConstant;
  TinyRun run(1, DType::kF32, false, options);
  Recorder seen;
  const auto send = [&](const std::string& text) { write_file_atomic(out / ".lr_control.json", text); };
  seen.then = [&](const StepReport& r) {  // looked at after steps 10, 20, ...
    if (r.step == 5) send(R"({"action": "reduce_lr", "factor": 0.5})");
    if (r.step == 15) send(R"({"action": "set_lr", "value": 3e-3})");
    if (r.step == 25) send(R"({"action": "reduce_lr", "factor": 0.1})");
    if (r.step == 35) send(R"({"action": "reset_lr"})");
    if (r.step == 45) send(R"({"action": "set_lr", "value": -1})");
    if (r.step == 55) send(R"({"action": "save_checkpoint"})");
    if (r.step == 65) send(R"({"action": "graceful_stop"})");
  };
  Trainer trainer(
      run.ctx, *run.target, *run.loader,
      [&] {
        options.schedule.base = 1e-2;
        options.schedule.total = 100;
        return options;
      }(),
      seen);
  const TrainSummary summary = trainer.run();
  EXPECT_FALSE(summary.stopped);  // an end like any other
  ASSERT_EQ(summary.steps, 70);
  const auto rate = [&](size_t step) { return seen.steps[step - 1].lr; };
  for (const auto& [step, lr] : {std::pair<size_t, double>{10, 1e-2},
                                 {11, 5e-3},
                                 {20, 5e-3},
                                 {21, 3e-3},
                                 {31, 3e-4},
                                 {41, 1e-2},
                                 {51, 1e-2},
                                 {70, 1e-2}})
    EXPECT_DOUBLE_EQ(rate(step), lr) << "step " << step;
  ASSERT_EQ(seen.warnings.size(), 1u);
  EXPECT_NE(seen.warnings[0].find("value"), std::string::npos) << seen.warnings[0];
  EXPECT_TRUE(fs::exists(out / "checkpoints" / "step_60" / "optimizer.safetensors"));
  EXPECT_TRUE(fs::exists(out / "checkpoints" / "step_70" / "optimizer.safetensors"));
  EXPECT_EQ(read_text(out / "checkpoints" / "latest"), "step_70\n");
  EXPECT_FALSE(fs::exists(out / ".lr_control.json"));
  fs::remove_all(out);
}

TEST(Trainer, Best_folder_holds_the_weights_of_the_best_evaluation) {
  const fs::path out = ts::scratch_dir("best");
  TrainOptions options = steps(8, out);
  options.eval_steps = 2;
  TinyRun run(1, DType::kF32, false, options);
  options.schedule.base = 1e-2;
  options.schedule.total = 8;
  Recorder seen;
  Trainer trainer(run.ctx, *run.target, *run.loader, options, seen);
  std::vector<data::PackedSequence> held_out;
  for (const data::Example& e : random_examples(5, 300)) held_out.emplace_back().append(e);
  trainer.set_eval(held_out);
  const TrainSummary summary = trainer.run();
  ASSERT_FALSE(seen.best.empty());
  EXPECT_EQ(seen.best[0], out / "checkpoints" / "best");
  // the folder's adapter, loaded into a fresh model, has the loss the run called its best
  Context ctx(std::make_shared<ThreadPool>(1));
  const auto model = models::build(run.checkpoint->config(), run.checkpoint->source());
  models::load_weights(ctx, *model, *run.checkpoint, {.dtype = DType::kF32});
  const auto adapter = adapters::Adapter::load(ctx, *model, out / "checkpoints" / "best");
  adapter->attach(*model, 0);
  EXPECT_NEAR(evaluate(ctx, *model, held_out).loss, summary.best_eval_loss, 1e-5);
  EXPECT_EQ(newest_checkpoint(out / "checkpoints")->filename(), "step_6");  // best/ is none to resume from
  fs::remove_all(out);
}

TEST(Trainer, Adaptive_rate_and_its_best_weights_survive_a_resume) {
  const auto options = [](int64_t n, const fs::path& output) {
    TrainOptions o = steps(n, output);
    o.accumulation = 1;
    o.save_steps = 34;
    o.adaptive_lr.emplace();
    o.adaptive_lr->rollback = true;
    o.adaptive_lr->spike_z = 0.5;  // so that something happens after the 30 steps of grace
    return o;
  };
  const fs::path out = ts::scratch_dir("adaptive");
  TinyRun whole(1, DType::kF32, false, options(44, {}));
  whole.trainer->run();
  TinyRun first(1, DType::kF32, false, options(36, out));
  first.trainer->run();
  EXPECT_TRUE(fs::exists(out / "checkpoints" / "step_34" / "best_snapshot.safetensors"));
  TinyRun second(1, DType::kF32, false, options(44, out));
  ASSERT_TRUE(second.trainer->resume());
  EXPECT_EQ(second.trainer->steps_done(), 34);
  second.trainer->run();
  EXPECT_EQ(whole.masters(), second.masters());
  fs::remove_all(out);
}

TEST(Trainer, Going_back_restores_masters_and_moments) {
  TinyRun run(1, DType::kBF16, false, steps(2));
  run.trainer->run();
  FlatParameters& p = run.trainer->parameters();
  Snapshot kept;
  p.keep(run.ctx, kept);
  const std::vector<float> before = run.masters();
  std::vector<data::PackedSequence> batch(1);
  ASSERT_TRUE(run.loader->next(batch[0]));
  run.trainer->step(batch);
  EXPECT_NE(run.masters(), before);
  const FlatParameters::Item& item = p.items()[0];
  const auto moments = [&](const Tensor& t) {
    return std::vector<float>(t.data<float>(), t.data<float>() + t.numel());
  };
  EXPECT_NE(moments(p.moment1(item)), moments(FlatParameters::part(kept.m, item)));
  p.go_back(run.ctx, kept);
  EXPECT_EQ(run.masters(), before);
  EXPECT_EQ(moments(p.moment1(item)), moments(FlatParameters::part(kept.m, item)));
  EXPECT_EQ(moments(p.moment2(item)), moments(FlatParameters::part(kept.v, item)));
}

TEST(Schedule, Values_equal_the_reference) {
  const auto file = formats::read_json(ts::data_dir() / "numerics" / "lr_schedules.json");
  for (const auto& row : file["schedules"]) {
    const std::string name = row["name"];
    const auto& k = row["kwargs"];
    Schedule s;
    s.base = file["base_lr"];
    s.warmup = name == "constant" ? 0 : file["num_warmup_steps"].get<int64_t>();
    s.total = file["num_training_steps"];
    const auto number = [&](const char* key, double fallback) {
      return k.contains(key) ? k[key].get<double>() : fallback;
    };
    if (name == "linear")
      s.kind = ScheduleKind::kLinear;
    else if (name == "cosine")
      s.kind = ScheduleKind::kCosine, s.cycles = number("num_cycles", 0.5);
    else if (name == "cosine_with_min_lr")
      s.kind = ScheduleKind::kCosine, s.min_ratio = number("min_lr", 0) / s.base;
    else if (name == "cosine_with_restarts")
      s.kind = ScheduleKind::kCosineWithRestarts, s.cycles = number("num_cycles", 1);
    else if (name == "polynomial")
      s.kind = ScheduleKind::kPolynomial, s.power = number("power", 1), s.end = number("lr_end", 1e-7);
    else if (name.starts_with("constant"))
      s.kind = ScheduleKind::kConstant;
    else if (name == "inverse_sqrt")
      s.kind = ScheduleKind::kInverseSqrt;
    else if (name == "warmup_stable_decay") {
      s.kind = ScheduleKind::kWsd;
      s.decay = k["num_decay_steps"];
      s.stable = s.total - s.warmup - s.decay;
      s.min_ratio = number("min_lr_ratio", 0);
      const std::string shape = k.contains("decay_type") ? k["decay_type"] : "cosine";
      s.shape = shape == "linear"   ? DecayShape::kLinear
                : shape == "cosine" ? DecayShape::kCosine
                                    : DecayShape::kOneMinusSqrt;
    } else
      FAIL() << name;
    for (size_t i = 0; i < row["lr"].size(); ++i)
      EXPECT_NEAR(s.rate(static_cast<int64_t>(i)), row["lr"][i].get<double>(), 1e-9 * s.base) << name << " step " << i;
  }
}

}  // namespace
}  // namespace pmetal::train
