// Candidates of the row ops (norms, rope, glu, elementwise, optimizer, KV append) on vectors, one level per instruction
// set; V is one of simd.h. Defined in simd_avx512_bf16.cc, simd_avx512.cc
// and simd_avx2.cc.
#pragma once

#include "backend/cpu/isa.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/kv.h"
#include "ops/norm.h"
#include "ops/norm_rope.h"
#include "ops/optim.h"
#include "ops/rope.h"
#include "ops/rope_append.h"

namespace pmetal::cpu {

struct Avx512Bf16;
struct Avx512;
struct Avx2;

template <class V>
struct SimdLevel {
  static const char* decline(const ops::GluArgs& args, const KernelContext& kernel);
  static void run(const ops::GluArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::RmsNormArgs& args, const KernelContext& kernel);
  static void run(const ops::RmsNormArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::RmsNormBackwardArgs& args, const KernelContext& kernel);
  static void run(const ops::RmsNormBackwardArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::RopeArgs& args, const KernelContext& kernel);
  static void run(const ops::RopeArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::RopeAppendArgs& args, const KernelContext& kernel);
  static void run(const ops::RopeAppendArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::NormRopeArgs& args, const KernelContext& kernel);
  static void run(const ops::NormRopeArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::NormRopeBackwardArgs& args, const KernelContext& kernel);
  static void run(const ops::NormRopeBackwardArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::BinaryArgs& args, const KernelContext& kernel);
  static void run(const ops::BinaryArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::UnaryArgs& args, const KernelContext& kernel);
  static void run(const ops::UnaryArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::AdamWArgs& args, const KernelContext& kernel);
  static void run(const ops::AdamWArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::SumSquaresArgs& args, const KernelContext& kernel);
  static int64_t workspace(const ops::SumSquaresArgs& args, const KernelContext& kernel);
  static void run(const ops::SumSquaresArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::EmbeddingArgs& args, const KernelContext& kernel);
  static int64_t workspace(const ops::EmbeddingArgs& args, const KernelContext& kernel);
  static void run(const ops::EmbeddingArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::IndexArgs& args, const KernelContext& kernel);
  static void run(const ops::IndexArgs& args, const KernelContext& kernel);
  static const char* decline(const ops::KvAppendArgs& args, const KernelContext& kernel);
  static void run(const ops::KvAppendArgs& args, const KernelContext& kernel);
  static const char* decline_backward(const ops::GluArgs& args, const KernelContext& kernel);
  static void run_backward(const ops::GluArgs& args, const KernelContext& kernel);
};

template <class V, class Args>
constexpr Candidate<Args> simd_candidate(const char* name) {
  if constexpr (requires(const Args& a, const KernelContext& k) { SimdLevel<V>::workspace(a, k); })
    return {name, SimdLevel<V>::decline, SimdLevel<V>::run, SimdLevel<V>::workspace};
  else
    return {name, SimdLevel<V>::decline, SimdLevel<V>::run, nullptr};
}
template <class V, class Args>
constexpr Candidate<Args> simd_backward_candidate(const char* name) {
  return {name, SimdLevel<V>::decline_backward, SimdLevel<V>::run_backward, nullptr};
}

}  // namespace pmetal::cpu
