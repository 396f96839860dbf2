#include "infer/filters.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pmetal::infer {

Candidates::Candidates(std::span<const float> logits) {
  items_.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    if (std::isfinite(logits[i])) items_.push_back({logits[i], static_cast<int32_t>(i)});
}

void Candidates::scale(float temperature) {
  for (Candidate& c : items_) c.z /= temperature;
  sorted_ = 0;  // division may round two logits to one: then their ids decide
}

double Candidates::max() const {
  if (sorted_ > 0) return items_[0].z;
  float best = items_[0].z;
  for (const Candidate& c : items_) best = std::max(best, c.z);
  return best;
}

double Candidates::log_sum() const {
  const double top = max();
  double sum = 0;
  for (const Candidate& c : items_) sum += std::exp(c.z - top);
  return top + std::log(sum);
}

double Candidates::entropy(double log_sum) const {
  double h = 0;
  for (const Candidate& c : items_) {
    const double log_p = c.z - log_sum;
    h -= std::exp(log_p) * log_p;
  }
  return h;
}

double Candidates::relative_entropy() const {
  if (items_.size() < 2) return 0;
  return entropy(log_sum()) / std::log(static_cast<double>(items_.size()));
}

void Candidates::sort_first(size_t n) {
  n = std::min(n, items_.size());
  if (n <= sorted_) return;
  const auto from = items_.begin() + static_cast<std::ptrdiff_t>(sorted_);
  const auto to = items_.begin() + static_cast<std::ptrdiff_t>(n);
  if (to != items_.end()) std::nth_element(from, to, items_.end(), comes_before);
  std::sort(from, to, comes_before);
  sorted_ = n;
}

void Candidates::keep_first(size_t n) {
  sort_first(n);
  items_.resize(std::min(n, items_.size()));
}

void Candidates::top_n_sigma(double n) {
  double mean = 0, variance = 0;
  for (const Candidate& c : items_) mean += c.z;
  mean /= static_cast<double>(items_.size());
  for (const Candidate& c : items_) variance += (c.z - mean) * (c.z - mean);
  const double limit = max() - n * std::sqrt(variance / static_cast<double>(items_.size()));
  std::erase_if(items_, [&](const Candidate& c) { return c.z < limit; });
  sorted_ = std::min(sorted_, items_.size());
}

void Candidates::top_k(int64_t k) {
  if (k > 0 && static_cast<size_t>(k) < items_.size()) keep_first(static_cast<size_t>(k));
}

void Candidates::typical(double p, int64_t keep) {
  const double log_sum = this->log_sum(), h = entropy(log_sum);
  struct Distance {
    double distance;
    Candidate c;
  };
  std::vector<Distance> order;
  order.reserve(items_.size());
  for (const Candidate& c : items_) order.push_back({std::fabs(log_sum - c.z - h), c});
  std::sort(order.begin(), order.end(), [](const Distance& a, const Distance& b) {
    return a.distance < b.distance || (a.distance == b.distance && comes_before(a.c, b.c));
  });
  size_t n = 0;
  for (double before = 0; n < order.size() && (before < p || n < static_cast<size_t>(keep)); ++n)
    before += std::exp(order[n].c.z - log_sum);
  items_.clear();
  for (size_t i = 0; i < n; ++i) items_.push_back(order[i].c);
  sorted_ = 0;
}

void Candidates::top_p(double p, int64_t keep) {
  const double log_sum = this->log_sum();
  double before = 0;
  size_t n = 0;
  // a few tokens usually hold the mass: sort no more than needed
  for (size_t block = 64; n < items_.size(); block *= 8) {
    sort_first(block);
    for (; n < std::min(block, items_.size()); ++n) {
      if (before >= p && n >= static_cast<size_t>(keep)) return keep_first(n);
      before += std::exp(items_[n].z - log_sum);
    }
  }
}

void Candidates::min_p(double p, int64_t keep) {
  const double limit = max() + std::log(p);
  const auto n = std::count_if(items_.begin(), items_.end(), [&](const Candidate& c) { return c.z >= limit; });
  keep_first(static_cast<size_t>(std::max<int64_t>(n, keep)));
}

void Candidates::keep_probable(double p, int64_t keep) {
  const double limit = log_sum() + std::log(p);
  const auto n = std::count_if(items_.begin(), items_.end(), [&](const Candidate& c) { return c.z >= limit; });
  keep_first(static_cast<size_t>(std::max<int64_t>(n, keep)));
}
void Candidates::epsilon(double p, int64_t keep) { keep_probable(p, keep); }
void Candidates::eta(double p, int64_t keep) {
  keep_probable(std::min(p, std::sqrt(p) * std::exp(-entropy(log_sum()))), keep);
}

void Candidates::exclude_top(double threshold, std::span<const int32_t> exempt) {
  const double limit = log_sum() + std::log(threshold);
  const auto likely = std::count_if(items_.begin(), items_.end(), [&](const Candidate& c) { return c.z >= limit; });
  if (likely < 2) return;
  const auto n = static_cast<size_t>(likely - 1);
  sort_first(n);
  const auto is_exempt = [&](const Candidate& c) {
    return std::find(exempt.begin(), exempt.end(), c.id) != exempt.end();
  };
  const auto last = items_.begin() + static_cast<std::ptrdiff_t>(n);
  items_.erase(std::remove_if(items_.begin(), last, [&](const Candidate& c) { return !is_exempt(c); }), last);
  sorted_ = 0;
}

void Candidates::surprise_at_most(double mu) {
  const double limit = log_sum() - mu * std::log(2.0);
  const auto n = std::count_if(items_.begin(), items_.end(), [&](const Candidate& c) { return c.z >= limit; });
  keep_first(static_cast<size_t>(std::max<int64_t>(n, 1)));
}

}  // namespace pmetal::infer
