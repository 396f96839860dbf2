// The engine over a small reference model (tests/data/models/qwen3, random weights) and a real tokenizer.
#include "infer/engine.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "base/testing.h"
#include "infer/generate.h"
#include "infer/reference_testing.h"
#include "models/checkpoint.h"

namespace pmetal::infer {
namespace {

namespace ts = testing_support;

struct Answer {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  std::string text;
  std::optional<Finish> finish;
};

class EngineTest : public testing::Test {
 protected:
  EngineTest() {
    const auto checkpoint = models::Checkpoint::open((ts::data_dir() / "models" / "qwen3").string());
    model = models::build(checkpoint->config(), checkpoint->source());
    models::load_weights(ctx, *model, *checkpoint, {.dtype = DType::kF32});
  }
  EngineOptions options(int64_t pages = 64) const {
    return {.max_pages = pages, .eos_ids = {}, .tokenizer = tokenizer.get()};
  }
  static Listener into(std::map<int32_t, Answer>& answers) {
    return [&answers](const Update& u) {
      Answer& a = answers[u.choice];
      EXPECT_FALSE(a.finish) << "news after the end";
      if (u.token) {
        a.ids.push_back(u.token->id);
        a.logprobs.push_back(u.token->logprob);
      }
      a.text += u.text;
      a.finish = u.finish;
    };
  }
  Answer alone(const Request& r, EngineOptions o) {
    Engine engine(ctx, *model, std::move(o));
    std::map<int32_t, Answer> answers;
    const auto g = engine.submit(r, into(answers));
    engine.run();
    EXPECT_TRUE(g->is_finished());
    EXPECT_EQ(engine.free_pages(), engine.total_pages());
    return answers[0];
  }
  std::vector<int32_t> random_prompt(PhiloxStream& random, uint64_t longest) const {
    std::vector<int32_t> ids(1 + random.below(longest));
    for (int32_t& id : ids) id = static_cast<int32_t>(random.below(317));
    return ids;
  }

  Context ctx{std::make_shared<ThreadPool>(2)};
  std::unique_ptr<models::Model> model;
  std::unique_ptr<text::Tokenizer> tokenizer =
      text::Tokenizer::from_file(ts::data_dir() / "tokenizers" / "tiny" / "tokenizer.json");
};

TEST_F(EngineTest, Greedy_answers_are_those_of_the_plain_loop) {
  const std::vector<int32_t> prompt = {5, 9, 200, 31, 7};
  const Answer a = alone({.prompt = prompt, .sampling = {.temperature = 0}, .max_tokens = 20}, options());
  EXPECT_EQ(a.ids, generate_greedy(ctx, *model, prompt, 20));
  ASSERT_TRUE(a.finish);
  EXPECT_EQ(a.finish->reason, Finish::Reason::kLength);
  EXPECT_EQ(a.text, tokenizer->decode(a.ids, true));
}

// K6 of the serving sheet: alone, or with random mates, arrivals, chunk sizes, budgets and too few pages
TEST_F(EngineTest, Answers_do_not_depend_on_mates_chunks_or_preemption) {
  PhiloxStream random(17, RngPurpose::kSynthetic);
  std::vector<Request> requests;
  std::vector<Answer> want;
  for (uint64_t i = 0; i < 12; ++i) {
    requests.push_back({.prompt = random_prompt(random, 90),
                        .sampling = {.temperature = i % 3 ? 0.9f : 0.f,
                                     .top_k = i % 2 ? 50 : 0,
                                     .repetition_penalty = 1.1f,
                                     .seed = i,
                                     .wants_logprobs = true},
                        .max_tokens = 30});
    want.push_back(alone(requests.back(), options()));
    ASSERT_EQ(want.back().ids.size(), 30u);
  }
  int64_t preemptions = 0;
  for (int round = 0; round < 6; ++round) {
    EngineOptions o = options(round % 2 ? 7 : 64);  // 7 pages: hardly three sequences
    o.max_chunk = static_cast<int64_t>(1 + random.below(40));
    o.max_step_tokens = static_cast<int64_t>(5 + random.below(100));
    o.max_sequences = static_cast<int64_t>(3 + random.below(10));
    Engine engine(ctx, *model, o);
    std::vector<std::map<int32_t, Answer>> got(requests.size());
    std::vector<std::unique_ptr<Generation>> running;
    for (size_t i = 0; i < requests.size();) {
      running.push_back(engine.submit(requests[i], into(got[i])));
      ++i;
      for (uint64_t n = random.below(4); n-- > 0;) engine.step();
    }
    engine.run();
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(got[i][0].ids, want[i].ids) << "round " << round << " request " << i;
      EXPECT_EQ(got[i][0].logprobs, want[i].logprobs);  // bit by bit
      EXPECT_EQ(got[i][0].text, want[i].text);
    }
    EXPECT_EQ(engine.free_pages(), engine.total_pages());
    preemptions += engine.counters().preemptions;
  }
  EXPECT_GT(preemptions, 0);
}

TEST_F(EngineTest, Several_answers_share_the_prompt_and_equal_single_ones) {
  PhiloxStream random(2, RngPurpose::kSynthetic);
  std::vector<int32_t> prompt(70);
  for (int32_t& id : prompt) id = static_cast<int32_t>(random.below(317));
  Request r{.prompt = prompt, .sampling = {.seed = 3}, .max_tokens = 12, .n = 4};
  Engine engine(ctx, *model, options());
  std::map<int32_t, Answer> answers;
  const auto g = engine.submit(r, into(answers));
  engine.run();
  ASSERT_EQ(answers.size(), 4u);
  EXPECT_EQ(engine.counters().prompt_tokens, 70);
  r.n = 1;
  EXPECT_EQ(answers[0].ids, alone(r, options()).ids);
  EXPECT_NE(answers[0].ids, answers[1].ids);
  // pages for two sequences only: the same answers all the same
  r.n = 4;
  Engine small(ctx, *model, options(4));
  std::map<int32_t, Answer> again;
  const auto h = small.submit(r, into(again));
  small.run();
  for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(again[i].ids, answers[i].ids);
}

TEST_F(EngineTest, Destroying_a_generation_frees_its_pages_and_leaves_the_others_alone) {
  const Request r{.prompt = {1, 2, 3}, .sampling = {.seed = 1}, .max_tokens = 20};
  const Request other{.prompt = {9, 8}, .sampling = {.seed = 2}, .max_tokens = 20};
  const Answer want = alone(other, options());
  Engine engine(ctx, *model, options());
  std::map<int32_t, Answer> a, b;
  auto first = engine.submit(r, into(a));
  const auto second = engine.submit(other, into(b));
  for (int i = 0; i < 5; ++i) engine.step();
  EXPECT_EQ(engine.free_pages(), engine.total_pages() - 2);
  first.reset();
  EXPECT_EQ(engine.free_pages(), engine.total_pages() - 1);
  engine.run();
  EXPECT_EQ(a[0].ids.size(), 5u);
  EXPECT_EQ(b[0].ids, want.ids);
}

TEST_F(EngineTest, A_generation_may_be_destroyed_by_its_own_listener) {
  Engine engine(ctx, *model, options());
  std::unique_ptr<Generation> g;
  int n = 0;
  g = engine.submit({.prompt = {1, 2, 3}, .max_tokens = 20, .n = 2}, [&](const Update&) {
    if (++n == 5) g.reset();
  });
  engine.run();
  EXPECT_EQ(n, 5);
  EXPECT_EQ(engine.free_pages(), engine.total_pages());
}

TEST_F(EngineTest, End_tokens_end_the_answer_and_give_no_text) {
  const Request r{.prompt = {5, 9, 200, 31, 7}, .sampling = {.temperature = 0}, .max_tokens = 20};
  const std::vector<int32_t> ids = alone(r, options()).ids;
  const int32_t end = ids[6];
  const auto at = static_cast<size_t>(std::find(ids.begin(), ids.end(), end) - ids.begin());
  EngineOptions o = options();
  o.eos_ids = {end};
  const Answer a = alone(r, o);
  ASSERT_TRUE(a.finish);
  EXPECT_EQ(a.finish->reason, Finish::Reason::kStop);
  EXPECT_EQ(a.finish->stop_id, end);
  EXPECT_EQ(a.ids, std::vector<int32_t>(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(at) + 1));
  EXPECT_EQ(a.text,
            tokenizer->decode(std::vector<int32_t>(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(at))));
}

TEST_F(EngineTest, Stop_strings_end_the_answer_before_them) {
  Request r{.prompt = {5, 9, 200, 31, 7}, .sampling = {.temperature = 0}, .max_tokens = 20};
  const std::string text = alone(r, options()).text;
  ASSERT_GT(text.size(), 8u);
  const std::string stop = text.substr(5, 3);
  r.stop = {"no such text", stop};
  const Answer a = alone(r, options());
  ASSERT_TRUE(a.finish);
  EXPECT_EQ(a.finish->stop_string, 1u);
  EXPECT_EQ(a.text, text.substr(0, text.find(stop)));
}

TEST_F(EngineTest, Loops_end_the_answer_when_asked_for) {
  Request r{.prompt = {5}, .sampling = {.temperature = 0, .logit_bias = {{40, 1000.f}}}, .max_tokens = 60};
  EXPECT_EQ(alone(r, options()).ids.size(), 60u);
  r.detect_repetition = true;
  const Answer a = alone(r, options());
  EXPECT_EQ(a.ids.size(), 32u);
  EXPECT_TRUE(a.finish->is_repetition);
}

TEST_F(EngineTest, Without_max_tokens_the_context_is_the_limit) {
  const Answer a = alone({.prompt = {1, 2, 3}, .sampling = {.seed = 4}}, options());
  EXPECT_EQ(a.ids.size(), 125u);  // the model's 128 positions
  EXPECT_EQ(a.finish->reason, Finish::Reason::kLength);
}

TEST_F(EngineTest, What_can_never_run_is_refused) {
  Engine engine(ctx, *model, options(1));
  const auto message = [&](const Request& r) -> std::string {
    try {
      const auto g = engine.submit(r, {});
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_NE(message({}).find("no tokens"), std::string::npos);
  EXPECT_NE(message({.prompt = {317}}).find("317"), std::string::npos);
  EXPECT_NE(message({.prompt = std::vector<int32_t>(64, 1)}).find("context holds 64"), std::string::npos);
  EXPECT_NE(message({.prompt = {1}, .max_tokens = 64}).find("at most 63"), std::string::npos);
  EXPECT_NE(message({.prompt = {1}, .sampling = {.top_p = 2}}).find("top_p"), std::string::npos);
  EXPECT_EQ(message({.prompt = {1}, .max_tokens = 63}), "accepted");
  EXPECT_FALSE(engine.step());
}

TEST_F(EngineTest, Nobody_waits_for_ever_behind_smaller_requests) {
  EngineOptions o = options(2);
  o.max_sequences = 8;
  Engine engine(ctx, *model, o);
  std::map<int32_t, Answer> small, large;
  std::vector<std::unique_ptr<Generation>> running;
  const Request one_page{.prompt = {1}, .sampling = {.seed = 1}, .max_tokens = 8};
  running.push_back(engine.submit(one_page, {}));
  engine.step();
  running.push_back(engine.submit({.prompt = std::vector<int32_t>(100, 3), .max_tokens = 2}, into(large)));
  int steps = 0;
  for (; !large[0].finish && steps < 1000; ++steps) {
    running.push_back(engine.submit(one_page, {}));
    engine.step();
  }
  EXPECT_LT(steps, 100);
}

}  // namespace
}  // namespace pmetal::infer
