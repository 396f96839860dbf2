// The filters of the sampler: each takes tokens out of the set of candidates, by the distribution that is left by those
// before it. At least one token survives each; ties go to the lower id. Sums are f64, so the sets are those of exact
// arithmetic on the given f32 logits up to its rounding.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pmetal::infer {

struct Candidate {
  float z;
  int32_t id;
};

// descending logit, then ascending id: the one order of all filters
inline bool comes_before(const Candidate& a, const Candidate& b) { return a.z > b.z || (a.z == b.z && a.id < b.id); }

class Candidates {
 public:
  explicit Candidates(std::span<const float> logits);  // the finite ones
  explicit Candidates(std::vector<Candidate> items) : items_(std::move(items)) {}

  const std::vector<Candidate>& items() const { return items_; }
  void scale(float temperature);
  // H of the distribution in nats, over the number of candidates' logarithm: 0..1
  double relative_entropy() const;

  void top_n_sigma(double n);
  void top_k(int64_t k);
  void typical(double p, int64_t keep);  // arXiv 2202.00666
  void top_p(double p, int64_t keep);    // arXiv 1904.09751; the token that crosses p stays
  void min_p(double p, int64_t keep);    // arXiv 2407.01082
  void epsilon(double p, int64_t keep);  // arXiv 2210.15191, both
  void eta(double p, int64_t keep);
  void exclude_top(double threshold, std::span<const int32_t> exempt);  // XTC, its coin having fallen
  void surprise_at_most(double mu);                                     // mirostat: -log2 p <= mu

  // ln sum e^z
  double log_sum() const;

 private:
  double max() const;
  double entropy(double log_sum) const;
  void sort_first(size_t n);  // items_[0, n) are the first of the order, in order
  void keep_first(size_t n);  // sorts them
  void keep_probable(double p, int64_t keep);

  std::vector<Candidate> items_;
  size_t sorted_ = 0;  // so many at the front are in their final place
};

}  // namespace pmetal::infer
