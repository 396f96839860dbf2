// `pmetal eval` against the stored evaluations of the small trained models (../shared/models/*/evaluation.json), where
// they are beside the checkout; and what it does with answers.
#include <gtest/gtest.h>

#include <atomic>
#include <sstream>

#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "formats/json.h"
#include "infer/generate.h"
#include "jobs/context.h"
#include "jobs/eval_methods.h"
#include "jobs/spec.h"

namespace pmetal::jobs {
namespace {

namespace ts = pmetal::testing_support;

struct Silence final : EventSink {
  void emit(const JobEvent&) override {}
};

Json run_eval_command(const std::vector<std::pair<std::string, std::string>>& values) {
  const Command* command = find_command("eval");
  JobOptions options(*command->spec);
  for (const auto& [name, value] : values) options.set_text(*options.find(name), value, name);
  Silence silence;
  std::ostringstream out;
  std::istringstream in;
  const std::atomic<bool> cancel{false};
  JobContext context("test", {&silence, &out, &in, &cancel});
  context.json = true;
  require_valid(options);
  command->run(options, context);
  return Json::parse(out.str());
}

std::vector<fs::path> evaluated_models() {
  std::vector<fs::path> all;
  if (!ts::shared_dir().empty())
    for (const fs::directory_entry& e : fs::directory_iterator(ts::shared_dir() / "models"))
      if (fs::exists(e.path() / "evaluation.json")) all.push_back(e.path());
  return all;
}

TEST(EvalTrained, Perplexity_of_the_trained_models_is_the_stored_one) {
  for (const fs::path& folder : evaluated_models()) {
    const auto stored = formats::read_json(folder / "evaluation.json");
    for (const auto& [dtype, tolerance] : {std::pair{"f32", 1e-3}, std::pair{"bf16", 1e-2}}) {
      const Json got = run_eval_command({{"model", folder.string()},
                                         {"dataset", (ts::shared_dir() / "data" / "val.txt").string()},
                                         {"max_seq_len", std::to_string(stored["window"].get<int>())},
                                         {"dtype", dtype}});
      EXPECT_EQ(got["text_tokens"], stored["val_tokens"].get<int64_t>());
      EXPECT_EQ(got["windows"], stored["scored_windows"].get<int64_t>());
      const double want = stored["perplexity"];
      EXPECT_NEAR(got["perplexity"].get<double>(), want, tolerance * want) << folder << " " << dtype;
    }
  }
}

TEST(EvalTrained, Greedy_continuations_of_the_trained_models_are_the_stored_ones) {
  for (const fs::path& folder : evaluated_models()) {
    Context ctx{std::make_shared<ThreadPool>(2)};
    const auto checkpoint = models::Checkpoint::open(folder.string());
    const auto model = models::build(checkpoint->config(), checkpoint->source());
    models::load_weights(ctx, *model, *checkpoint, {.dtype = DType::kF32});
    const TextSession text = open_text(folder, model->info());
    const nlohmann::ordered_json evaluation = formats::read_json(folder / "evaluation.json");
    for (const auto& g : evaluation["greedy"]) {
      const std::string prompt = g["prompt"];
      const std::vector<int32_t> ids = text.tokenizer->encode_ids(prompt);
      EXPECT_EQ(ids, g["prompt_ids"].get<std::vector<int32_t>>());
      const auto want = g["new_ids"].get<std::vector<int32_t>>();
      EXPECT_EQ(infer::generate_greedy(ctx, *model, ids, static_cast<int64_t>(want.size())), want) << prompt;
      EXPECT_EQ(text.tokenizer->decode(want, true), g["text"].get<std::string>());
    }
  }
}

TEST(Eval, The_part_of_an_answer_that_is_compared) {
  EXPECT_EQ(answer_part(" \n 42 is it\t\n", AnswerPart::kStripped), "42 is it");
  EXPECT_EQ(answer_part(" \n", AnswerPart::kStripped), "");
  EXPECT_EQ(answer_part(" 42\n", AnswerPart::kExact), " 42\n");
  EXPECT_EQ(answer_part("12 + 7 = 19, so 1,234.50 in all.", AnswerPart::kLastNumber), "1234.50");
  EXPECT_EQ(answer_part("it is -3", AnswerPart::kLastNumber), "-3");
  EXPECT_EQ(answer_part("nothing", AnswerPart::kLastNumber), "");
}

}  // namespace
}  // namespace pmetal::jobs
