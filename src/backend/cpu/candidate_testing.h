// For tests of candidates: runs one of a list by hand, with workspace of its own, and compares with the plain one.
#pragma once

#include <gtest/gtest.h>

#include "ops/test_support.h"
#include "tensor/kernel.h"

namespace pmetal::testing_support {

template <class Args>
void run_candidate(Context& ctx, const Candidate<Args>& candidate, const Args& args) {
  KernelContext kernel{&ctx.threads(), nullptr, 0, nullptr, 0};
  Buffer workspace;
  if (candidate.workspace) {
    kernel.workspace_bytes = candidate.workspace(args, kernel);
    workspace = ctx.allocator().allocate(kernel.workspace_bytes);
    kernel.workspace = workspace.data();
  }
  candidate.run(args, kernel);
}

template <class Args>
bool takes(Context& ctx, const Candidate<Args>& candidate, const Args& args) {
  return !candidate.decline || !candidate.decline(args, {&ctx.threads(), nullptr, 0, nullptr, 0});
}

// Calls make(outputs) -> Args for the plain candidate and every tuned one that takes them; the outputs must agree
// within `tolerance` relative to the largest value (bf16: one rounding more). Returns how many candidates were
// compared.
template <class Args, class Make>
int compare_candidates(Context& ctx, const KernelList<Args>& list, std::vector<Tensor> outputs, double tolerance,
                       Make&& make) {
  const auto copies = [&] {
    std::vector<Tensor> c;
    for (const Tensor& t : outputs) c.push_back(converted(t, t.dtype()));
    return c;
  };
  const std::vector<Tensor> expected = copies();
  run_candidate(ctx, list.candidates.back(), make(expected));
  int compared = 0;
  for (size_t i = 0; i + 1 < list.candidates.size(); ++i) {
    const std::vector<Tensor> got = copies();
    const Args args = make(got);
    if (!takes(ctx, list.candidates[i], args)) continue;
    run_candidate(ctx, list.candidates[i], args);
    ++compared;
    for (size_t o = 0; o < got.size(); ++o)
      EXPECT_LE(relative_error(values_of(got[o]), values_of(expected[o])),
                got[o].dtype() == DType::kBF16 ? std::max(tolerance, 0x1p-7) : tolerance)
          << list.op << " " << list.candidates[i].name << " output " << o;
  }
  return compared;
}

}  // namespace pmetal::testing_support
