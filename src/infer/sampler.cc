#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "infer/logits_processors.h"

namespace pmetal::infer {
namespace {

constexpr float kGreedyBelow = 1e-5f;
constexpr float kImpossibleLogprob = -9999;  // JSON has no infinity
constexpr int64_t kMostTop = 192;            // top-k up to here is decided from the largest logits
constexpr int64_t kSpareTop = 64;            // beyond those that are kept: what penalties may push down
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// a row must hold a number for at least one token
void check_row(std::span<const float> logits) {
  bool any = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == kInfinity)
      fail(ErrorCode::kNumerical, "the logit of token {} is {}; no token can be drawn from this row", i, logits[i]);
    any |= logits[i] != -kInfinity;
  }
  if (!any) fail(ErrorCode::kNumerical, "every token is ruled out; nothing can be drawn");
}

}  // namespace

Sampler::Sampler(SamplingParams params, std::span<const int32_t> prompt, SamplerSetup setup)
    : params_(std::move(params)),
      history_(prompt, params_.penalty_last_n),
      setup_(std::move(setup)),
      mu_(params_.mirostat ? 2.0 * static_cast<double>(params_.mirostat->tau) : 0) {}

bool Sampler::is_greedy() const {
  return (params_.dynamic_temperature ? params_.dynamic_temperature->max : params_.temperature) < kGreedyBelow;
}

void Sampler::before_filters(std::span<float> logits) const {
  if (setup_.vocabulary > 0 && static_cast<size_t>(setup_.vocabulary) < logits.size())
    std::fill(logits.begin() + setup_.vocabulary, logits.end(), -kInfinity);
  apply_masks(logits, params_, history_, setup_.eos_ids, setup_.stop_ids);
  apply_bias(logits, params_, history_);
  apply_penalties(logits, params_, history_);
  apply_dry(logits, params_.dry, history_.tokens());
  apply_no_repeat_ngram(logits, params_.no_repeat_ngram, history_.tokens());
}

void Sampler::set_temperature(Candidates& c) const {
  float t = params_.temperature;
  if (const auto& d = params_.dynamic_temperature)
    t = std::max(kGreedyBelow,
                 static_cast<float>(d->min + (d->max - d->min) *
                                                 std::pow(c.relative_entropy(), static_cast<double>(d->exponent))));
  if (t != 1) c.scale(t);
}

float Sampler::noise_uniform(uint32_t token, RngPurpose purpose) const {
  const PhiloxBlock block =
      philox4x32(philox_key(params_.seed), {token >> 2, static_cast<uint32_t>(history_.output_length()),
                                            setup_.stream | 0x100u * static_cast<uint32_t>(purpose), 0});
  return uniform_open(block[token & 3]);
}

void Sampler::filter(Candidates& c) const {
  const bool llama = params_.order == SamplerOrder::kLlama;
  if (!llama) set_temperature(c);
  if (params_.mirostat) {
    if (llama) set_temperature(c);
    return c.surprise_at_most(mu_);
  }
  const int64_t keep = params_.min_tokens_to_keep;
  if (params_.top_n_sigma > 0) c.top_n_sigma(params_.top_n_sigma);
  if (params_.top_k > 0) c.top_k(std::max(params_.top_k, keep));
  if (params_.typical_p < 1) c.typical(params_.typical_p, keep);
  if (params_.top_p < 1) c.top_p(params_.top_p, keep);
  if (params_.min_p > 0) c.min_p(params_.min_p, keep);
  if (params_.epsilon_cutoff > 0) c.epsilon(params_.epsilon_cutoff, keep);
  if (params_.eta_cutoff > 0) c.eta(params_.eta_cutoff, keep);
  if (const Xtc& x = params_.xtc;
      x.probability > 0 && x.threshold <= 0.5f && noise_uniform(0, RngPurpose::kXtcCoin) < x.probability)
    c.exclude_top(x.threshold, x.keep);
  if (llama) set_temperature(c);
}

// arg min over v of E_v / p_v, E exponentially distributed: as drawing from p. Compared as ln E_v - z_v, which needs no
// normalisation.
int32_t Sampler::draw(const Candidates& candidates) const {
  constexpr float kLeastLogE = -23;  // below ln(2^-33), the least ln E there is
  const PhiloxBlock::value_type none = ~0u;
  uint32_t block_index = none;
  PhiloxBlock block{};
  const auto score = [&](const Candidate& c) {
    const auto id = static_cast<uint32_t>(c.id);
    if (block_index != id >> 2) {
      block_index = id >> 2;
      block = philox4x32(philox_key(params_.seed),
                         {block_index, static_cast<uint32_t>(history_.output_length()),
                          setup_.stream | 0x100u * static_cast<uint32_t>(RngPurpose::kTokenDraw), 0});
    }
    return std::log(-std::log1p(-uniform_open(block[id & 3]))) - c.z;
  };
  const std::vector<Candidate>& items = candidates.items();
  // begin with the likeliest: tokens so unlikely that no noise could make them win are not looked at
  const Candidate* winner = &*std::min_element(items.begin(), items.end(), comes_before);
  float best = score(*winner);
  for (const Candidate& c : items) {
    if (kLeastLogE - c.z > best) continue;
    const float s = score(c);
    if (s < best || (s == best && c.id < winner->id)) {
      best = s;
      winner = &c;
    }
  }
  return winner->id;
}

void Sampler::process(std::span<float> logits) {
  before_filters(logits);
  check_row(logits);
  if (is_greedy()) {
    const int32_t best = arg_max(logits);
    std::fill(logits.begin(), logits.end(), -kInfinity);
    logits[static_cast<size_t>(best)] = 0;
    return;
  }
  Candidates candidates(logits);
  filter(candidates);
  std::fill(logits.begin(), logits.end(), -kInfinity);
  for (const Candidate& c : candidates.items()) logits[static_cast<size_t>(c.id)] = c.z;
}

Sampled Sampler::sample(std::span<float> logits) {
  Sampled out;
  const bool raw = params_.wants_logprobs && params_.logprobs_mode == LogprobsMode::kRaw;
  std::vector<float> before;
  if (raw) {
    before.assign(logits.begin(), logits.end());
    out.top = LogSoftmax(before).top(params_.logprobs);
  }
  before_filters(logits);
  check_row(logits);
  surprise_ = -1;
  if (is_greedy()) {
    out.id = arg_max(logits);
  } else {
    Candidates candidates(logits);
    filter(candidates);
    out.id = draw(candidates);
    if (params_.mirostat) {
      const double log_sum = candidates.log_sum();
      for (const Candidate& c : candidates.items())
        if (c.id == out.id) surprise_ = (log_sum - c.z) / std::log(2.0);
    }
    if (params_.wants_logprobs && !raw) {
      std::fill(logits.begin(), logits.end(), -kInfinity);
      for (const Candidate& c : candidates.items()) logits[static_cast<size_t>(c.id)] = c.z;
    }
  }
  if (raw) out.logprob = LogSoftmax(before).of(out.id);
  if (params_.wants_logprobs && !raw) {
    const LogSoftmax processed(logits);
    out.logprob = processed.of(out.id);
    out.top = processed.top(params_.logprobs);
  }
  return out;
}

bool Sampler::changes_logits() const {
  const SamplingParams& p = params_;
  return !p.banned.empty() || !p.sequence_bias.empty() || !p.logit_bias.empty() || p.repetition_penalty != 1 ||
         p.frequency_penalty != 0 || p.presence_penalty != 0 || p.dry.multiplier != 0 || p.no_repeat_ngram > 0 ||
         p.ignore_eos || history_.output_length() < p.min_tokens;
}

int64_t Sampler::top_wanted() const {
  const SamplingParams& p = params_;
  if (p.wants_logprobs || p.allowed || p.dynamic_temperature || p.mirostat || p.top_n_sigma > 0) return 0;
  // what raises logits may raise one that is not among the largest
  if (p.repetition_penalty < 1 || p.frequency_penalty < 0 || p.presence_penalty < 0 || p.dry.multiplier < 0) return 0;
  for (const auto& [id, bias] : p.logit_bias)
    if (bias > 0) return 0;
  for (const SequenceBias& s : p.sequence_bias)
    if (s.bias > 0) return 0;
  if (is_greedy()) return kSpareTop;
  const int64_t kept = std::max(p.top_k, p.min_tokens_to_keep);
  return p.top_k > 0 && kept <= kMostTop ? kept + kSpareTop : 0;
}

std::optional<Sampled> Sampler::sample_top(std::vector<Candidate> top, float rest_below, int64_t vocabulary) {
  if (changes_logits()) {
    std::vector<float> row(static_cast<size_t>(vocabulary), -kInfinity);
    for (const Candidate& c : top) row[static_cast<size_t>(c.id)] = c.z;
    before_filters(row);
    for (Candidate& c : top) c.z = row[static_cast<size_t>(c.id)];
  }
  std::erase_if(top, [&](const Candidate& c) {
    return c.z == -kInfinity || (setup_.vocabulary > 0 && c.id >= setup_.vocabulary);
  });
  if (top.empty()) return std::nullopt;
  surprise_ = -1;
  Sampled out;
  if (is_greedy()) {
    const Candidate& best = *std::min_element(top.begin(), top.end(), comes_before);
    if (best.z <= rest_below) return std::nullopt;
    out.id = best.id;
    return out;
  }
  // All that top-k keeps must be here: the last of them lies above everything that is not, as the filter sees it.
  const auto kept = static_cast<size_t>(std::max(params_.top_k, params_.min_tokens_to_keep));
  if (top.size() <= kept) return std::nullopt;
  const float t = params_.order == SamplerOrder::kLlama ? 1 : params_.temperature;
  std::vector<float> z;
  for (const Candidate& c : top) z.push_back(t == 1 ? c.z : c.z / t);
  std::nth_element(z.begin(), z.begin() + static_cast<std::ptrdiff_t>(kept) - 1, z.end(), std::greater<>());
  if (z[kept - 1] <= (t == 1 ? rest_below : rest_below / t)) return std::nullopt;
  Candidates candidates(std::move(top));
  filter(candidates);
  out.id = draw(candidates);
  return out;
}

std::optional<ops::DrawRow> Sampler::device_draw(int64_t vocabulary) const {
  const SamplingParams& p = params_;
  if (is_greedy() || changes_logits() || p.allowed || p.wants_logprobs || p.dynamic_temperature || p.mirostat ||
      p.top_n_sigma > 0 || p.top_k > 0 || p.typical_p < 1 || p.epsilon_cutoff > 0 || p.eta_cutoff > 0 ||
      p.xtc.probability > 0 || p.min_tokens_to_keep > 1 || (p.order == SamplerOrder::kLlama && p.temperature != 1))
    return std::nullopt;
  ops::DrawRow row;
  row.vocabulary = static_cast<int32_t>(setup_.vocabulary > 0 ? std::min(setup_.vocabulary, vocabulary) : vocabulary);
  row.key = philox_key(p.seed);
  row.position = static_cast<uint32_t>(history_.output_length());
  row.stream = setup_.stream | 0x100u * static_cast<uint32_t>(RngPurpose::kTokenDraw);
  row.temperature = p.temperature;
  row.top_p = static_cast<double>(p.top_p);
  row.log_min_p = p.min_p > 0 ? std::log(static_cast<double>(p.min_p)) : 0;
  return row;
}

void Sampler::accept(int32_t id) {
  history_.push(id);
  if (params_.mirostat && surprise_ >= 0) {
    mu_ -= static_cast<double>(params_.mirostat->eta) * (surprise_ - static_cast<double>(params_.mirostat->tau));
    surprise_ = -1;
  }
}

LogSoftmax::LogSoftmax(std::span<const float> logits) : logits_(logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float z : logits) sum += std::exp(z - top);
  log_sum_ = top + std::log(sum);
}

float LogSoftmax::of(int32_t id) const {
  const float z = logits_[static_cast<size_t>(id)];
  return z == -kInfinity ? kImpossibleLogprob : static_cast<float>(z - log_sum_);
}

std::vector<TokenLogprob> LogSoftmax::top(int64_t n) const {
  std::vector<int32_t> ids(logits_.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const auto end = ids.begin() + std::min<std::ptrdiff_t>(n, static_cast<std::ptrdiff_t>(ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(), [&](int32_t a, int32_t b) {
    const float za = logits_[static_cast<size_t>(a)], zb = logits_[static_cast<size_t>(b)];
    return za > zb || (za == zb && a < b);
  });
  std::vector<TokenLogprob> top;
  for (auto i = ids.begin(); i != end; ++i) top.push_back({*i, of(*i)});
  return top;
}

int32_t arg_max(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

uint64_t random_seed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

}  // namespace pmetal::infer
