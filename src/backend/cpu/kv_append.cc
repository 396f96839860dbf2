// kv_append, plain: rows of keys and values go to their slots in the pages [pages, kv_heads, 64, d].
#include "backend/cpu/plain.h"
#include "backend/cpu/simd_level.h"
#include "ops/kv.h"

#pragma GCC target("avx2,fma,f16c")

namespace pmetal::cpu {
namespace {

void put(const View& rows, const View& pages, int64_t token, int64_t head, int64_t slot) {
  const int64_t d = rows.dim(2), size = pages.dim(2);
  PMETAL_ASSERT(slot / size < pages.dim(0), "slot {} of {} pages", slot, pages.dim(0));
  const int64_t from = token * rows.stride(0) + head * rows.stride(1);
  const int64_t to = slot / size * pages.stride(0) + head * pages.stride(1) + slot % size * pages.stride(2);
  for (int64_t c = 0; c < d; c += kBlock) {
    const int64_t n = std::min(kBlock, d - c);
    if (is_double(rows.dtype)) {
      double v[kBlock];
      load(rows, from + c * rows.stride(2), rows.stride(2), n, v);
      store(pages, to + c * pages.stride(3), pages.stride(3), n, v);
    } else {
      float v[kBlock];
      load(rows, from + c * rows.stride(2), rows.stride(2), n, v);
      store(pages, to + c * pages.stride(3), pages.stride(3), n, v);
    }
  }
}

void kv_append_plain(const ops::KvAppendArgs& args, const KernelContext& kernel) {
  for_rows(kernel, args.k.dim(0), args.k.dim(1) * args.k.dim(2), [&](int64_t t) {
    const int64_t slot = args.slots.as<int64_t>()[t * args.slots.stride(0)];
    if (slot < 0) return;
    for (int64_t h = 0; h < args.k.dim(1); ++h) {
      put(args.k, args.k_pages, t, h, slot);
      put(args.v, args.v_pages, t, h, slot);
    }
  });
}

}  // namespace
}  // namespace pmetal::cpu

namespace pmetal::ops {
namespace {
using cpu::simd_candidate;
const Candidate<KvAppendArgs> kCandidates[] = {simd_candidate<cpu::Avx512, KvAppendArgs>("avx512"),
                                               simd_candidate<cpu::Avx2, KvAppendArgs>("avx2"),
                                               {"plain", nullptr, cpu::kv_append_plain}};
}  // namespace
const KernelList<KvAppendArgs> kv_append_cpu = {"kv_append", kCandidates};
}  // namespace pmetal::ops
