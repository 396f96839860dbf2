// Every op's kernel table as text, for `pmetal list kernels` and for tests that must miss none.
#pragma once

#include <string_view>
#include <vector>

namespace pmetal::ops {

struct KernelListing {
  std::string_view op;
  std::vector<std::string_view> cpu, cuda;  // candidates, best first
  bool is_fused = false;                    // where no candidate takes it, the ops it is made of run
};
std::vector<KernelListing> kernel_lists();

}  // namespace pmetal::ops
