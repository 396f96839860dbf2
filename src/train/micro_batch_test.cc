// Micro-batches as recorded graphs: bits as when each kernel is started, whatever the packing; what cannot be recorded
// says so. Runs where PMETAL_TEST_DEVICE says: on the CPU nothing is recorded, and that is all there is to see.
#include "train/micro_batch.h"

#include <cstdlib>

#include "train/train_testing.h"

namespace pmetal::train {
namespace {

using namespace testing;

Device test_device() {
  const char* name = std::getenv("PMETAL_TEST_DEVICE");
  return name ? parse_device(name) : kCpu;
}

struct Outcome {
  std::vector<float> masters;
  std::vector<double> losses, norms;
  int64_t replayed = 0, started = 0;
};

class Losses final : public TrainObserver {
 public:
  explicit Losses(Outcome& to) : to_(to) {}
  void on_step(const StepReport& r) override {
    EXPECT_EQ(static_cast<size_t>(r.step), to_.losses.size() + 1);
    to_.losses.push_back(r.loss);
    to_.norms.push_back(r.grad_norm);
  }

 private:
  Outcome& to_;
};

Outcome outcome(DType dtype, bool dora, double dropout, bool records, Device device) {
  Outcome o;
  TrainOptions options = steps(12);
  options.records = records;
  TinyRun run(2, dtype, dora, options, device, dropout);
  options.schedule.total = options.total_steps = 12;
  options.schedule.base = 1e-2;
  Losses losses(o);
  run.trainer = std::make_unique<Trainer>(run.ctx, *run.target, *run.loader, options, losses);
  run.trainer->run();
  o.masters = run.masters();
  o.replayed = run.trainer->micro_batches().replayed;
  o.started = run.trainer->micro_batches().started;
  return o;
}

TEST(MicroBatches, Replayed_ones_have_the_bits_of_started_ones) {
  const Device device = test_device();
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const bool dora : {false, true})
      for (const double dropout : {0.0, 0.2}) {
        SCOPED_TRACE(fmt::format("{}{} dropout {}", name_of(dtype), dora ? " dora" : "", dropout));
        const Outcome recorded = outcome(dtype, dora, dropout, true, device),
                      started = outcome(dtype, dora, dropout, false, device);
        EXPECT_EQ(recorded.losses.size(), 12u);
        EXPECT_EQ(recorded.masters, started.masters);
        EXPECT_EQ(recorded.losses, started.losses);
        EXPECT_EQ(recorded.norms, started.norms);
        EXPECT_EQ(started.replayed, 0);
        EXPECT_EQ(recorded.replayed + recorded.started, 24);
        if (device.is_cuda() && !dora)
          EXPECT_GE(recorded.replayed, 12);
        else
          EXPECT_EQ(recorded.replayed, 0);
      }
}

TEST(MicroBatches, Losses_are_those_of_the_cpu) {
  const Device device = test_device();
  const Outcome here = outcome(DType::kF32, false, 0.2, true, device),
                there = outcome(DType::kF32, false, 0.2, true, kCpu);
  for (size_t i = 0; i < there.losses.size(); ++i) {
    EXPECT_NEAR(here.losses[i], there.losses[i], 1e-4 * there.losses[i]) << "step " << i + 1;
    EXPECT_NEAR(here.norms[i], there.norms[i], 1e-3 * there.norms[i]) << "step " << i + 1;
  }
}

TEST(MicroBatches, A_run_that_is_resumed_ends_in_the_same_bits) {
  const Device device = test_device();
  const fs::path out = ts::scratch_dir("recorded_resume");
  TinyRun whole(2, DType::kBF16, false, steps(8), device);
  whole.trainer->run();
  TinyRun first(1, DType::kBF16, false, steps(5, out), device);
  first.trainer->run();  // saves at step 3
  TinyRun second(2, DType::kBF16, false, steps(8, out), device);
  ASSERT_TRUE(second.trainer->resume());
  second.trainer->run();
  EXPECT_EQ(whole.masters(), second.masters());
  fs::remove_all(out);
}

TEST(MicroBatches, A_step_that_is_not_finite_changes_nothing_and_does_not_count) {
  const Device device = test_device();
  TrainOptions options = steps(8);
  options.schedule.kind = ScheduleKind::kConstant;
  TinyRun run(1, DType::kF32, false, options, device, 0), other(1, DType::kF32, false, options, device, 0);
  std::vector<data::PackedSequence> batch(1), bad(1);
  ASSERT_TRUE(run.loader->next(batch[0]));
  run.trainer->step(batch);
  other.trainer->step(batch);
  const FlatParameters::Item& item = run.trainer->parameters().items()[0];
  const Tensor master = run.trainer->parameters().master(item);
  const Tensor kept = run.ctx.empty(master.shape(), master.dtype());
  ops::copy(run.ctx, master, kept);
  const std::vector<float> before = run.masters();
  ops::fill(run.ctx, master, NAN);
  const StepReport r = run.trainer->step(batch);
  EXPECT_TRUE(r.skipped);
  ops::copy(run.ctx, kept, master);
  EXPECT_EQ(run.masters(), before);
  EXPECT_FALSE(run.trainer->step(batch).skipped);
  other.trainer->step(batch);
  EXPECT_EQ(run.masters(), other.masters());
}

}  // namespace
}  // namespace pmetal::train
