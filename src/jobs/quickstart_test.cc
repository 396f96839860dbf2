// The whole quickstart on a model so small that it takes seconds: accuracy rises, and what it wrote can be loaded.
#include "jobs/quickstart.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <sstream>

#include "base/error.h"
#include "base/testing.h"
#include "jobs/model_session.h"
#include "jobs/text_session.h"

namespace pmetal::jobs {
namespace {

constexpr RecipeSpec kTiny = {.name = "tiny",
                              .hidden = 64,
                              .layers = 2,
                              .heads = 2,
                              .kv_heads = 1,
                              .intermediate = 128,
                              .vocabulary = 384,
                              .corpus_bytes = 40'000,
                              .letter_chats = 3000,
                              .other_chats = 40,
                              .pretrain_steps = 400,
                              .sequence_length = 128,
                              .pretrain_lr = 6e-3,
                              .letters = 2,
                              .test_questions = 40,
                              .tuning_rows = 500,
                              .tuning_steps = 1000,
                              .tuning_lr = 1e-2};

struct Collector final : EventSink {
  int64_t steps = 0;
  std::vector<std::string> artefacts;
  std::atomic<bool>* cancel = nullptr;
  void emit(const JobEvent& event) override {
    if (std::holds_alternative<StepMetric>(event.body) && ++steps == 3 && cancel) *cancel = true;
    if (const auto* a = std::get_if<ArtefactEvent>(&event.body)) artefacts.push_back(a->role);
  }
};

void expect_to_learn(uint64_t seed, bool may_stay, double* after) {
  Collector events;
  std::ostringstream data;
  std::istringstream input;
  std::atomic<bool> cancel{false};
  JobContext job("quickstart", {&events, &data, &input, &cancel});
  QuickstartOptions options;
  options.output_dir = testing_support::scratch_dir("quickstart_tiny");
  options.threads = 1;
  options.seed = seed;
  const QuickstartResult result = quickstart(options, kTiny, job);
  *after = result.after;
  EXPECT_LE(result.before, 0.1);  // two letters of 26 in one order: a blind guess is right once in 650
  if (!may_stay) EXPECT_GE(result.after, 0.5);
  EXPECT_EQ(events.steps, kTiny.pretrain_steps + kTiny.tuning_steps);
  EXPECT_EQ(job.summary.total_steps, events.steps);
  EXPECT_GT(job.summary.total_tokens, events.steps * kTiny.sequence_length);
  EXPECT_EQ(events.artefacts, (std::vector<std::string>{"model", "adapter"}));
  EXPECT_NE(data.str().find("Write these letters backwards: "), std::string::npos);

  const ModelSession loaded =
      open_session(job, {.model = result.model.string(), .adapter = result.adapter.string(), .threads = 1});
  EXPECT_EQ(loaded.adapter->config().r, kTiny.lora_r);
  EXPECT_EQ(open_text(result.adapter, loaded.model->info()).eos, 2);
  std::filesystem::remove_all(options.output_dir);
}

// A model of this size stays where it began in about one run of ten (3 of 32 seeds on three instruction sets), and
// which run it is changes with the last bit of any kernel: then a second seed must not. The others end at 0.8 to 1.
TEST(Quickstart, A_tiny_one_learns_the_task_and_its_files_load) {
  double after = 0;
  expect_to_learn(3, true, &after);
  if (after < 0.5) expect_to_learn(4, false, &after);
}

TEST(Quickstart, A_cancelled_one_stops_in_the_middle) {
  Collector events;
  std::ostringstream data;
  std::istringstream input;
  std::atomic<bool> cancel{false};
  events.cancel = &cancel;
  JobContext job("quickstart", {&events, &data, &input, &cancel});
  QuickstartOptions options;
  options.output_dir = testing_support::scratch_dir("quickstart_cancelled");
  options.threads = 1;
  try {
    quickstart(options, kTiny, job);
    ADD_FAILURE() << "was not stopped";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCancelled);
  }
  EXPECT_EQ(events.steps, 3);
  EXPECT_TRUE(events.artefacts.empty());
  std::filesystem::remove_all(options.output_dir);
}

TEST(Quickstart, A_faster_machine_gets_a_larger_recipe) {
  EXPECT_EQ(recipe_for_speed(0).name, "small");
  EXPECT_EQ(recipe_for_speed(160).name, "small");   // AVX2, two cores
  EXPECT_EQ(recipe_for_speed(400).name, "medium");  // AVX-512 with BF16
  EXPECT_EQ(recipe_for_speed(1800).name, "large");  // AMX
}

}  // namespace
}  // namespace pmetal::jobs
