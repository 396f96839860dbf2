#include "ops/kernel_lists.h"

#include "ops/headers.inc"

namespace pmetal::ops {
namespace {

template <class Args>
std::vector<std::string_view> names(const KernelList<Args>& list) {
  std::vector<std::string_view> all;
  for (const Candidate<Args>& c : list.candidates) all.push_back(c.name);
  return all;
}

}  // namespace

std::vector<KernelListing> kernel_lists() {
  return {
#define X(op, Args) {#op, names(op##_cpu), names(op##_cuda), false},
#include "ops/kernels.inc"
#undef X
#define X(op, Args) {#op, {}, names(op##_cuda), true},
#include "ops/fused.inc"
#undef X
  };
}

}  // namespace pmetal::ops
