// Values: sampling.md sections 4 and 5 (closed forms), fixtures/numerics/samplers (transformers' processors), and a
// plain reference here that sorts everything in f64.
#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/testing.h"
#include "formats/json.h"
#include "infer/filters.h"
#include "infer/logits_processors.h"
#include "infer/loop_detector.h"
#include "infer/reference_testing.h"

namespace pmetal::infer {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const std::vector<float> kLogits = {2, 1, .5f, 0, -1, -3};

using Rows = std::vector<double>;  // probability per token, 0 = ruled out

Rows probabilities(std::span<const float> z) {
  double sum = 0, top = -INFINITY;
  for (float x : z) top = std::max<double>(top, x);
  Rows p;
  for (float x : z) {
    p.push_back(std::exp(x - top));
    sum += p.back();
  }
  for (double& x : p) x /= sum;
  return p;
}

Rows processed(SamplingParams params, std::vector<float> z = kLogits, std::vector<int32_t> prompt = {},
               std::vector<int32_t> output = {}) {
  validate(params, static_cast<int64_t>(z.size()));
  Sampler sampler(std::move(params), prompt);
  for (int32_t id : output) sampler.accept(id);
  sampler.process(z);
  return probabilities(z);
}
void expect_near(const Rows& got, const Rows& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-6) << "token " << i;
}
std::set<int32_t> kept(const Rows& p) {
  std::set<int32_t> ids;
  for (size_t i = 0; i < p.size(); ++i)
    if (p[i] > 0) ids.insert(static_cast<int32_t>(i));
  return ids;
}
using Ids = std::set<int32_t>;

TEST(Sampler, Gives_the_golden_distributions) {
  expect_near(processed({}), {.560893, .206341, .125152, .075909, .027925, .003779});
  expect_near(processed({.temperature = .7f}), {.699811, .167710, .082101, .040192, .009632, .000553});
  expect_near(processed({.temperature = 1.5f}), {.431797, .221692, .158849, .113820, .058437, .015404});
  expect_near(processed({.top_k = 3}), {.628532, .231224, .140244, 0, 0, 0});
  EXPECT_EQ(kept(processed({.top_p = .8f})), (Ids{0, 1, 2}));
  EXPECT_EQ(kept(processed({.top_p = .5f})), (Ids{0}));
  EXPECT_EQ(kept(processed({.top_p = .56f})), (Ids{0}));
  EXPECT_EQ(kept(processed({.top_p = .57f})), (Ids{0, 1}));
  EXPECT_EQ(kept(processed({.min_p = .2f})), (Ids{0, 1, 2}));
  EXPECT_EQ(kept(processed({.top_n_sigma = 1})), (Ids{0, 1, 2}));
  expect_near(processed({.typical_p = .5f}), {.731059, .268941, 0, 0, 0, 0});
  expect_near(processed({.xtc = {.probability = 1, .threshold = .1f}}), {0, 0, .537675, .326117, .119972, .016236});
  expect_near(processed({.repetition_penalty = 1.2f, .frequency_penalty = .5f, .presence_penalty = .25f}, kLogits,
                        {0, 3}, {0, 0, 2}),
              {.238155, .426774, .112496, .157001, .057758, .007817});
  expect_near(processed({.dynamic_temperature = DynamicTemperature{.5f, 1.5f, 1}}),
              processed({.temperature = 1.184681f}));
}

TEST(Sampler, Temperature_comes_before_truncation_unless_llama_order_is_asked_for) {
  EXPECT_EQ(kept(processed({.temperature = .7f, .top_p = .8f})), (Ids{0, 1}));
  const Rows llama = processed({.temperature = .7f, .top_p = .8f, .order = SamplerOrder::kLlama});
  EXPECT_EQ(kept(llama), (Ids{0, 1, 2}));
  EXPECT_NEAR(llama[0] / llama[1], .699811 / .167710, 1e-4);
}

TEST(Sampler, Negative_logits_are_multiplied_by_the_repetition_penalty) {
  std::vector<float> z = kLogits;
  const SamplingParams p{.repetition_penalty = 1.2f};
  const std::vector<int32_t> prompt = {4, 5};
  apply_penalties(z, p, TokenHistory(prompt, 0));
  EXPECT_FLOAT_EQ(z[4], -1.2f);
  EXPECT_FLOAT_EQ(z[5], -3.6f);
}

TEST(Sampler, Penalties_can_look_at_a_window_and_at_the_prompt) {
  std::vector<float> z(4, 0.f);
  const SamplingParams p{.frequency_penalty = 1, .penalty_last_n = 3, .penalties_see_prompt = true};
  const std::vector<int32_t> prompt = {0, 0, 1, 2, 1};
  apply_penalties(z, p, TokenHistory(prompt, p.penalty_last_n));
  EXPECT_EQ(z, (std::vector<float>{0, -2, -1, 0}));
}

TEST(Sampler, Dry_gives_the_golden_penalties) {
  std::vector<float> z(10, 0.f);
  const std::vector<int32_t> plain = {1, 2, 3, 4, 5, 9, 1, 2, 3, 4};
  apply_dry(z, {.multiplier = .8f}, plain);
  for (size_t i = 0; i < z.size(); ++i) EXPECT_NEAR(z[i], i == 5 ? -2.45 : 0, 1e-5);

  z.assign(10, 0.f);
  const std::vector<int32_t> broken = {1, 2, 3, 4, 5, 0, 7, 2, 3, 4, 6, 0, 1, 2, 3, 4};
  apply_dry(z, {.multiplier = .8f, .breakers = {0}}, broken);
  for (size_t i = 0; i < z.size(); ++i) EXPECT_NEAR(z[i], i == 5 ? -2.45 : i == 6 ? -1.40 : 0, 1e-5);
}

TEST(Sampler, Dry_agrees_with_a_search_by_hand_and_does_not_overflow) {
  PhiloxStream random(7, RngPurpose::kSynthetic);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> x(1 + random.below(60));
    for (int32_t& id : x) id = static_cast<int32_t>(random.below(4));
    const Dry dry{.multiplier = .5f, .base = 2, .allowed_length = 2, .breakers = {3}};
    std::vector<float> got(4, 0.f);
    apply_dry(got, dry, x);
    std::map<int32_t, size_t> longest;
    for (size_t i = 1; i < x.size(); ++i) {
      size_t l = 0;
      while (l < i && x[i - 1 - l] == x[x.size() - 1 - l] && x[i - 1 - l] != 3) ++l;
      if (l >= 2) longest[x[i]] = std::max(longest[x[i]], l);
    }
    for (int32_t v = 0; v < 4; ++v)
      EXPECT_FLOAT_EQ(got[static_cast<size_t>(v)],
                      longest.contains(v) ? -.5f * std::exp2f(static_cast<float>(longest[v]) - 2) : 0.f);
  }
  std::vector<float> z(2, 0.f);
  apply_dry(z, {.multiplier = 1}, std::vector<int32_t>(5000, 1));
  EXPECT_TRUE(std::isfinite(z[1]));
}

TEST(Sampler, Mirostat_moves_its_target_by_the_surprise_of_what_was_drawn) {
  const SamplingParams params{.mirostat = Mirostat{}, .seed = 0};
  for (uint64_t seed = 0;; ++seed) {
    SamplingParams p = params;
    p.seed = seed;
    Sampler sampler(p, {});
    std::vector<float> z = kLogits;
    const int32_t id = sampler.sample(z).id;
    EXPECT_EQ(sampler.mirostat_mu(), 10);
    sampler.accept(id);
    if (id != 2) continue;
    EXPECT_NEAR(sampler.mirostat_mu(), 10.200176, 1e-6);
    break;
  }
}

TEST(Sampler, Equals_the_stored_processors) {
  const auto file = formats::SafetensorsFile::open(testing_support::data_dir() / "numerics" / "samplers.safetensors");
  const auto settings = formats::read_json(testing_support::data_dir() / "numerics" / "samplers.json");
  const std::vector<float> logits = reference::values<float>(file, "logits");
  const std::vector<int64_t> ids = reference::values<int64_t>(file, "input_ids");
  constexpr size_t kRows = 6, kV = 97, kLength = 20;
  int compared = 0;
  for (const auto& s : settings) {
    const std::string name = s["name"];
    if (name.starts_with("top_h")) continue;  // a sampler that we do not have
    SCOPED_TRACE(name);
    SamplingParams p;
    std::vector<int32_t> eos;
    p.temperature = s.value("temperature", 1.f);
    p.top_k = s.value("top_k", 0);
    p.top_p = s.value("top_p", 1.f);
    p.min_p = s.value("min_p", 0.f);
    p.typical_p = s.value("typical_p", 1.f);
    p.epsilon_cutoff = s.value("epsilon", 0.f);
    p.eta_cutoff = s.value("eta", 0.f);
    p.min_tokens_to_keep = s.value("min_tokens_to_keep", 1);
    p.repetition_penalty = s.value("repetition_penalty", 1.f);
    p.frequency_penalty = s.value("frequency_penalty", 0.f);
    p.presence_penalty = s.value("presence_penalty", 0.f);
    p.penalties_see_prompt = true;
    p.no_repeat_ngram = s.value("no_repeat_ngram_size", 0);
    if (s.contains("min_length")) {
      p.min_tokens = s["min_length"];
      p.min_tokens -= static_cast<int64_t>(kLength);
      eos.push_back(s["eos_token_id"]);
    }
    if (s.contains("bad_words_ids"))
      for (const auto& w : s["bad_words_ids"]) p.sequence_bias.push_back({w.get<std::vector<int32_t>>()});
    if (s.contains("sequence_bias"))
      for (const auto& w : s["sequence_bias"])
        p.sequence_bias.push_back({w[0].get<std::vector<int32_t>>(), w[1].get<float>()});
    if (name == "chain") p = {.temperature = .8f, .top_k = 30, .top_p = .9f, .min_p = .05f, .repetition_penalty = 1.2f};
    const std::vector<float> want = reference::values<float>(file, name);
    for (size_t r = 0; r < kRows; ++r) {
      std::vector<int32_t> prompt;
      for (size_t i = 0; i < kLength; ++i) prompt.push_back(static_cast<int32_t>(ids[r * kLength + i]));
      std::vector<float> z(logits.begin() + static_cast<std::ptrdiff_t>(r * kV),
                           logits.begin() + static_cast<std::ptrdiff_t>((r + 1) * kV));
      Sampler(p, prompt, {.eos_ids = eos}).process(z);
      float least = kInf;
      for (float x : z)
        if (x != -kInf) least = std::min(least, x);
      if (p.top_k > 0 && name != "chain") {
        EXPECT_EQ(std::count_if(z.begin(), z.end(), [](float x) { return x != -kInf; }),
                  std::min<int64_t>(p.top_k, static_cast<int64_t>(kV)));
      }
      for (size_t v = 0; v < kV; ++v) {
        const float w = want[r * kV + v];
        // transformers keeps all that tie with the k-th; here exactly k stay, the lowest ids
        if (p.top_k > 0 && z[v] == -kInf && w == least) continue;
        if (w == -kInf)
          EXPECT_EQ(z[v], w) << "row " << r << " token " << v;
        else
          EXPECT_NEAR(z[v], w, 1e-5 * std::max(1.f, std::fabs(w))) << "row " << r << " token " << v;
      }
    }
    ++compared;
  }
  EXPECT_EQ(compared, 33);
}

// ---- against a plain reference -------------------------------------------------------------------------------------

struct Reference {
  std::vector<std::pair<double, int32_t>> left;  // logit, id: best first

  explicit Reference(std::span<const float> z) {
    for (size_t i = 0; i < z.size(); ++i)
      if (z[i] != -kInf) left.push_back({z[i], static_cast<int32_t>(i)});
    std::sort(left.begin(), left.end(),
              [](auto a, auto b) { return a.first > b.first || (a.first == b.first && a.second < b.second); });
  }
  std::vector<double> p() const {
    std::vector<double> p;
    double sum = 0;
    for (auto [z, id] : left) {
      p.push_back(std::exp(z - left[0].first));
      sum += p.back();
    }
    for (double& x : p) x /= sum;
    return p;
  }
  // how near to its border a cumulated or single probability comes: there rounding may decide
  double margin = INFINITY;
  void near(double a, double b) { margin = std::min(margin, std::fabs(a - b)); }

  void top_k(size_t k) { left.resize(std::min(k, left.size())); }
  void top_p(double limit) {
    double sum = 0;
    size_t n = 0;
    for (double x : p()) {
      near(sum, limit);
      if (sum >= limit && n > 0) break;
      sum += x;
      ++n;
    }
    left.resize(n);
  }
  void min_p(double limit) {
    const std::vector<double> p = this->p();
    size_t n = 0;
    for (double x : p) {
      near(x / p[0], limit);
      n += x >= limit * p[0];
    }
    left.resize(n);
  }
  void typical(double limit) {
    const std::vector<double> p = this->p();
    double h = 0;
    for (double x : p) h -= x > 0 ? x * std::log(x) : 0;
    std::vector<size_t> order(left.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto distance = [&](size_t i) { return std::fabs(-std::log(p[i]) - h); };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      // different logits at equal distance on both sides of H cannot be told apart: nor can the margin
      return distance(a) < distance(b) - 1e-13 * h;
    });
    double sum = 0;
    size_t n = 0;
    auto kept = left;
    for (; n < order.size(); ++n) {
      near(sum, limit);
      if (sum >= limit && n > 0) break;
      sum += p[order[n]];
      kept[n] = left[order[n]];
    }
    kept.resize(n);
    left = kept;
    std::sort(left.begin(), left.end(),
              [](auto a, auto b) { return a.first > b.first || (a.first == b.first && a.second < b.second); });
  }
  void top_n_sigma(double n) {
    double mean = 0, variance = 0;
    for (auto [z, id] : left) mean += z;
    mean /= static_cast<double>(left.size());
    for (auto [z, id] : left) variance += (z - mean) * (z - mean);
    const double limit = left[0].first - n * std::sqrt(variance / static_cast<double>(left.size()));
    size_t count = 0;
    for (auto [z, id] : left) {
      near(z, limit);
      count += z >= limit;
    }
    left.resize(std::max<size_t>(count, 1));
  }
  Ids ids() const {
    Ids s;
    for (auto [z, id] : left) s.insert(id);
    return s;
  }
};

// logits with many ties and some -infinity
std::vector<float> random_row(PhiloxStream& random, size_t v) {
  std::vector<float> z(v);
  const bool ties = random.below(2) == 0;
  for (float& x : z) {
    x = static_cast<float>(random.normal() * 3);
    if (ties) x = std::round(x * 2) / 2;
    if (random.below(10) == 0) x = -kInf;
  }
  z[random.below(v)] = 1;  // never all ruled out
  return z;
}

TEST(Sampler, Filters_keep_the_sets_of_a_sorting_reference) {
  PhiloxStream random(11, RngPurpose::kSynthetic);
  int64_t compared = 0;
  for (const auto& [v, rows] : {std::pair<size_t, int>{7, 4000}, {1000, 300}, {152064, 3}}) {
    for (int round = 0; round < rows; ++round) {
      const std::vector<float> z = random_row(random, v);
      const double p = 0.02 + 0.96 * random.uniform();
      const auto k = static_cast<int64_t>(1 + random.below(2 * v));
      const auto check = [&](const char* what, auto&& ours, auto&& plain) {
        Candidates c(z);
        ours(c);
        Reference r(z);
        plain(r);
        if (r.margin < 1e-11) return;
        Ids got;
        for (const Candidate& x : c.items()) got.insert(x.id);
        ASSERT_EQ(got, r.ids()) << what << " V " << v << " p " << p << " k " << k;
        ++compared;
      };
      check(
          "top_k", [&](Candidates& c) { c.top_k(k); }, [&](Reference& r) { r.top_k(static_cast<size_t>(k)); });
      check(
          "top_p", [&](Candidates& c) { c.top_p(p, 1); }, [&](Reference& r) { r.top_p(p); });
      check(
          "min_p", [&](Candidates& c) { c.min_p(p, 1); }, [&](Reference& r) { r.min_p(p); });
      check(
          "top_n_sigma", [&](Candidates& c) { c.top_n_sigma(p * 3); }, [&](Reference& r) { r.top_n_sigma(p * 3); });
      check(
          "typical", [&](Candidates& c) { c.typical(p, 1); }, [&](Reference& r) { r.typical(p); });
      check(
          "chain",
          [&](Candidates& c) {
            c.top_k(k);
            c.top_p(p, 1);
            c.min_p(p / 2, 1);
          },
          [&](Reference& r) {
            r.top_k(static_cast<size_t>(k));
            r.top_p(p);
            r.min_p(p / 2);
          });
    }
  }
  EXPECT_GT(compared, 20000);
}

TEST(Sampler, Disabled_settings_change_no_bit) {
  PhiloxStream random(3, RngPurpose::kSynthetic);
  const std::vector<int32_t> prompt = {1, 2, 3, 1, 2, 3, 1, 2};
  SamplingParams p{.top_k = -1, .xtc = {.probability = 0}, .dry = {.multiplier = 0}};
  for (int64_t k : {int64_t{-1}, int64_t{0}, int64_t{1000}, int64_t{5000}}) {
    p.top_k = k;
    const std::vector<float> z = random_row(random, 1000);
    std::vector<float> out = z;
    Sampler(p, prompt).process(out);
    EXPECT_EQ(out, z);
  }
}

TEST(Sampler, Rows_that_nothing_can_be_drawn_from_are_errors) {
  Sampler sampler({}, {});
  for (const std::vector<float>& bad : {std::vector<float>{0, NAN, 1}, {0, kInf, 1}, {-kInf, -kInf, -kInf}}) {
    std::vector<float> z = bad;
    EXPECT_THROW(sampler.sample(z), Error);
  }
}

TEST(Sampler, Zero_temperature_takes_the_lowest_of_equals) {
  Sampler sampler({.temperature = 0}, {});
  std::vector<float> z = {1, 3, 3, 2};
  EXPECT_EQ(sampler.sample(z).id, 1);
}

TEST(Sampler, Padded_ids_are_never_drawn) {
  Sampler sampler({.temperature = 0}, {}, {.vocabulary = 3});
  std::vector<float> z = {1, 3, 2, 9};
  EXPECT_EQ(sampler.sample(z).id, 1);
}

TEST(Sampler, Masks_hold_against_bias) {
  const SamplingParams p{
      .temperature = 0, .logit_bias = {{0, 100.f}, {3, 50.f}}, .banned = {0}, .allowed = std::vector<int32_t>{0, 1, 2}};
  Sampler sampler(p, {});
  std::vector<float> z = {5, 1, 2, 4};
  EXPECT_EQ(sampler.sample(z).id, 2);
}

TEST(Sampler, No_stop_id_before_min_tokens_and_no_end_token_under_ignore_eos) {
  Sampler sampler({.temperature = 0, .min_tokens = 2}, {}, {.eos_ids = {0}, .stop_ids = {1}});
  const std::vector<float> z = {9, 8, 1};
  for (int32_t want : {2, 2, 0}) {
    std::vector<float> row = z;
    const int32_t id = sampler.sample(row).id;
    EXPECT_EQ(id, want);
    sampler.accept(id);
  }
  Sampler endless({.temperature = 0, .ignore_eos = true}, {}, {.eos_ids = {0}, .stop_ids = {1}});
  std::vector<float> row = z;
  EXPECT_EQ(endless.sample(row).id, 1);
}

// chi-square of draws against the distribution that process() gives
TEST(Sampler, Draws_follow_the_distribution) {
  constexpr size_t kV = 50;
  constexpr int kDraws = 200000;
  PhiloxStream random(5, RngPurpose::kSynthetic);
  std::vector<float> z(kV);
  for (float& x : z) x = static_cast<float>(random.normal() * 2);
  const SamplingParams p{.temperature = .9f, .top_k = 30, .top_p = .97f, .seed = 42};
  std::vector<float> left = z;
  Sampler(p, {}).process(left);
  const Rows want = probabilities(left);
  std::vector<int> count(kV);
  Sampler sampler(p, {});
  for (int i = 0; i < kDraws; ++i) {
    std::vector<float> row = z;
    const int32_t id = sampler.sample(row).id;
    ++count[static_cast<size_t>(id)];
    sampler.accept(id);
  }
  double chi2 = 0;
  int classes = 0;
  for (size_t i = 0; i < kV; ++i) {
    if (want[i] == 0) {
      EXPECT_EQ(count[i], 0);
      continue;
    }
    const double expected = want[i] * kDraws;
    chi2 += (count[i] - expected) * (count[i] - expected) / expected;
    ++classes;
  }
  // Wilson-Hilferty: the 99.9 % quantile of chi-square with n degrees of freedom
  const double n = classes - 1;
  EXPECT_GT(n, 10);
  EXPECT_LT(chi2, n * std::pow(1 - 2 / (9 * n) + 3.09 * std::sqrt(2 / (9 * n)), 3));
}

TEST(Sampler, Rare_tokens_come_as_often_as_they_should) {
  // one token of p = 1 - 1e-3, ten of 1e-4
  std::vector<float> z(11, static_cast<float>(std::log(1e-4)));
  z[3] = static_cast<float>(std::log(1 - 1e-3));
  Sampler sampler({.seed = 9}, {});
  constexpr int kDraws = 400000;
  int rare = 0;
  for (int i = 0; i < kDraws; ++i) {
    std::vector<float> row = z;
    const int32_t id = sampler.sample(row).id;
    rare += id != 3;
    sampler.accept(id);
  }
  EXPECT_NEAR(rare, kDraws * 1e-3, 3 * std::sqrt(kDraws * 1e-3));
}

TEST(Sampler, The_draw_is_a_function_of_seed_stream_and_position) {
  const std::vector<float> z(1000, 0.f);
  const auto draw = [&](uint64_t seed, uint32_t stream, int64_t position) {
    Sampler sampler({.seed = seed}, {}, {.stream = stream});
    for (int64_t i = 0; i < position; ++i) sampler.accept(0);
    std::vector<float> row = z;
    return sampler.sample(row).id;
  };
  EXPECT_EQ(draw(1, 0, 5), draw(1, 0, 5));
  std::set<int32_t> different;
  for (uint64_t seed : {uint64_t{1}, uint64_t{2}, uint64_t{1} << 32})
    for (uint32_t stream : {0u, 1u})
      for (int64_t position : {0, 1, 2}) different.insert(draw(seed, stream, position));
  EXPECT_GT(different.size(), 14u);  // 18 draws of 1000
}

// arg min of E/p by the definition, every token looked at
TEST(Sampler, The_draw_is_the_arg_min_of_noise_over_probability) {
  PhiloxStream random(8, RngPurpose::kSynthetic);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> z(500);
    for (float& x : z) x = static_cast<float>(random.normal() * 12);
    const uint64_t seed = random.next_u32();
    int32_t want = 0;
    double best = INFINITY;
    for (uint32_t id = 0; id < z.size(); ++id) {
      const float u = uniform_open(philox4x32(philox_key(seed), {id >> 2, 0, 0, 0})[id & 3]);
      const double score = std::log(-std::log1p(-static_cast<double>(u))) - static_cast<double>(z[id]);
      if (score < best) {
        best = score;
        want = static_cast<int32_t>(id);
      }
    }
    EXPECT_EQ(Sampler({.seed = seed}, {}).sample(z).id, want);
  }
}

// What a device gives: every logit above a limit, in no order.
TEST(Sampler, The_largest_logits_decide_the_token_of_the_row_or_nothing) {
  PhiloxStream random(23, RngPurpose::kSynthetic);
  constexpr int64_t kVocabulary = 1000;
  int decided = 0, wanted = 0;
  for (int round = 0; round < 600; ++round) {
    SamplingParams p{.temperature = round % 3 == 0 ? 0 : 0.5f + static_cast<float>(random.below(3)) * 0.4f};
    p.seed = random.below(1000);
    p.top_k = static_cast<int64_t>(random.below(40));  // 0: off
    if (round % 4 == 1) p.top_p = 0.8f;
    if (round % 5 == 1) p.min_p = 0.05f;
    if (round % 7 == 1) p.repetition_penalty = 1.3f, p.frequency_penalty = 0.5f;
    if (round % 11 == 1) p.banned = {3, 4, 5}, p.ignore_eos = true;
    if (round % 13 == 1) p.no_repeat_ngram = 2;
    if (round % 17 == 1) p.order = SamplerOrder::kLlama;
    if (round % 19 == 1) p.presence_penalty = -1;
    std::vector<int32_t> prompt;
    for (int i = 0; i < 30; ++i) prompt.push_back(static_cast<int32_t>(random.below(kVocabulary)));
    const SamplerSetup setup{.eos_ids = {7}, .vocabulary = round % 2 ? 990 : 0};
    Sampler whole(p, prompt, setup), top(p, prompt, setup);
    for (int t = 0; t < 4; ++t) {
      std::vector<float> row(kVocabulary);
      const float grain = round % 2 ? 8 : 1e6f;  // coarse: many ties
      for (float& z : row) z = std::round(static_cast<float>(3 * random.normal()) * grain) / grain;
      std::vector<float> sorted = row;
      std::sort(sorted.begin(), sorted.end(), std::greater<>());
      const int64_t n = top.top_wanted();
      std::optional<Sampled> got;
      if (n > 0) {
        const float limit = sorted[static_cast<size_t>(n)];
        std::vector<Candidate> candidates;
        for (int32_t i = kVocabulary; i-- > 0;)
          if (row[static_cast<size_t>(i)] > limit) candidates.push_back({row[static_cast<size_t>(i)], i});
        got = top.sample_top(candidates, limit, kVocabulary);
        ++wanted;
        decided += got.has_value();
      }
      const Sampled want = whole.sample(row);
      if (got) EXPECT_EQ(got->id, want.id) << "round " << round << " token " << t;
      whole.accept(want.id);
      top.accept(want.id);
    }
  }
  EXPECT_GT(wanted, 1500);
  EXPECT_GT(decided, wanted * 9 / 10);
}

TEST(Sampler, Logprobs_are_those_of_the_raw_logits) {
  Sampler sampler({.temperature = 0, .banned = {0}, .logprobs = 2, .wants_logprobs = true}, {});
  std::vector<float> z = kLogits;
  const Sampled s = sampler.sample(z);
  EXPECT_EQ(s.id, 1);
  EXPECT_NEAR(s.logprob, -1.57822, 1e-5);
  ASSERT_EQ(s.top.size(), 2u);
  EXPECT_EQ(s.top[0].id, 0);
  EXPECT_NEAR(s.top[0].logprob, -.57822, 1e-5);
  EXPECT_NEAR(s.top[1].logprob, -1.57822, 1e-5);
}

TEST(Sampler, Processed_logprobs_are_those_of_what_is_left) {
  Sampler sampler({.top_k = 2, .logprobs = 3, .wants_logprobs = true, .logprobs_mode = LogprobsMode::kProcessed}, {});
  std::vector<float> z = kLogits;
  const Sampled s = sampler.sample(z);
  EXPECT_NEAR(s.top[0].logprob, std::log(.731059), 1e-5);
  EXPECT_NEAR(s.top[1].logprob, std::log(.268941), 1e-5);
  EXPECT_EQ(s.top[2].logprob, -9999);
}

TEST(Sampler, Values_out_of_range_are_named) {
  const auto message = [](const SamplingParams& p) -> std::string {
    try {
      validate(p, 10);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({}), "");
  EXPECT_NE(message({.temperature = NAN}).find("temperature"), std::string::npos);
  EXPECT_NE(message({.top_p = 0}).find("top_p: must be above 0"), std::string::npos);
  EXPECT_NE(message({.repetition_penalty = 0}).find("repetition_penalty"), std::string::npos);
  EXPECT_NE(message({.logit_bias = {{10, 1.f}}}).find("token id 10"), std::string::npos);
  EXPECT_NE(message({.allowed = std::vector<int32_t>{}}).find("allowed"), std::string::npos);
}

TEST(TokenHistory, Counts_equal_a_recount_after_truncation) {
  PhiloxStream random(4, RngPurpose::kSynthetic);
  for (int64_t window : {int64_t{0}, int64_t{5}}) {
    const std::vector<int32_t> prompt = {1, 2, 1};
    TokenHistory h(prompt, window);
    for (int round = 0; round < 1000; ++round) {
      if (random.below(3) == 0)
        h.truncate(3 + static_cast<int64_t>(random.below(static_cast<uint64_t>(h.output_length() + 1))));
      else
        h.push(static_cast<int32_t>(random.below(4)));
      std::map<int32_t, std::pair<int64_t, int64_t>> want;
      for (int64_t i = window ? std::max<int64_t>(0, h.length() - window) : 0; i < h.length(); ++i) {
        auto& [all, output] = want[h.tokens()[static_cast<size_t>(i)]];
        ++all;
        output += i >= 3;
      }
      ASSERT_EQ(h.counts().size(), want.size());
      for (const auto& [id, c] : h.counts()) ASSERT_EQ(std::pair(c.all, c.output), want[id]);
    }
  }
}

TEST(LoopDetector, Stops_where_the_golden_values_say) {
  const auto stops_at = [](auto&& token, int64_t limit) -> int64_t {
    LoopDetector d;
    for (int64_t i = 0; i < limit; ++i)
      if (d.push(static_cast<int32_t>(token(i)))) return i + 1;
    return -1;
  };
  EXPECT_EQ(stops_at([](int64_t) { return 7; }, 1000), 32);
  EXPECT_EQ(stops_at([](int64_t i) { return i < 20 ? 100 + i : (i - 20) % 3; }, 1000), 52);
  EXPECT_EQ(stops_at([](int64_t i) { return i < 40 ? 1000 + i : (i - 40) % 40; }, 1000), 200);
  EXPECT_EQ(stops_at([](int64_t i) { return i < 40 ? 1000 + i : (i - 40) % 64; }, 1000), 296);
  EXPECT_EQ(stops_at([](int64_t i) { return i; }, 10000), -1);
}

}  // namespace
}  // namespace pmetal::infer
