// Launcher of decode_blocks.
#include "ops/decode_blocks.h"

#include "backend/cuda/decode_blocks.h"
#include "backend/cuda/dense.h"
#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

using ops::DecodeBlock;
using ops::DecodeBlocksArgs;

DecodeBlocksShape shape_of(const DecodeBlocksArgs& args) {
  const ops::DecodeBlocks& m = *args.model;
  return {static_cast<int>(args.x.dim(1)), static_cast<int>(m.blocks[0].gate.weight->out), static_cast<int>(m.heads),
          static_cast<int>(m.kv_heads), static_cast<int>(m.head_dim)};
}

bool is_packed(const View& v) { return v.dtype == DType::kBF16 && v.stride(-1) == 1 && is_aligned(v, 16); }

const char* decline(const DecodeBlocksArgs& args, const KernelContext& kernel) {
  if (kernel.is_batch_invariant) return "not one algorithm for any number of rows";
  const Stream& stream = stream_of(kernel);
  if (!has_sm90_kernels() || !stream.is_sm90()) return "no bulk copies: built without sm_90a, or another device";
  const ops::DecodeBlocks& m = *args.model;
  if (m.blocks.size() > kMostDecodeBlocks) return "more than 128 blocks";
  const int64_t inner = m.blocks[0].gate.weight->out;
  if (decode_blocks_stages(shape_of(args), stream.multiprocessors()) == 0)
    return "sides are no multiples of 256 or too long, or heads are not of 64 or 128 in groups of up to 8";
  if (!is_packed(args.x) || !is_packed(args.y)) return "the residual stream is not bf16";
  if (args.cos.dtype != DType::kF32 || args.cos.dim(1) * 2 != m.head_dim || args.cos.stride(1) != 1 ||
      args.sin.stride(1) != 1 || !is_aligned(args.cos, 8) || !is_aligned(args.sin, 8))
    return "the table is not f32 of whole heads";
  for (const DecodeBlock& b : m.blocks) {
    if (b.gate.weight->out != inner) return "blocks differ in shape";
    for (const ops::WeightAndBias* w : {&b.q, &b.k, &b.v, &b.o, &b.gate, &b.up, &b.down}) {
      if (!w->weight->format->is_dense) return "the weight's format has no CUDA kernel";
      const View v = dense_view(*w->weight);
      if (v.dtype != DType::kBF16 || !has_packed_rows(v) || v.stride(0) != v.dim(1))
        return "a weight is not packed bf16";
      if (w->bias && !is_packed(w->bias.view())) return "a bias is not bf16";
    }
    for (const Tensor* t : {&b.input_norm, &b.post_norm, &b.q_norm, &b.k_norm})
      if (t->defined() && !is_packed(t->view())) return "a norm's weight is not bf16";
    for (const Tensor* t : {&b.k_pages, &b.v_pages})
      if (!t->is_contiguous() || !is_packed(t->view())) return "the pages are not bf16";
  }
  return nullptr;
}

int64_t workspace(const DecodeBlocksArgs& args, const KernelContext&) {
  return decode_blocks_workspace(shape_of(args));
}

void run(const DecodeBlocksArgs& args, const KernelContext& kernel) {
  const Stream& stream = stream_of(kernel);
  const ops::DecodeBlocks& m = *args.model;
  const DecodeBlocksShape shape = shape_of(args);
  const auto a = std::make_unique<DecodeBlocksLaunch>();
  const auto data = [](const ops::WeightAndBias& w) -> const void* { return w.weight->planes[0].bytes.data(); };
  const auto at = [](const Tensor& t) -> void* { return t.defined() ? t.view().data : nullptr; };
  for (size_t i = 0; i < m.blocks.size(); ++i) {
    const DecodeBlock& b = m.blocks[i];
    a->block[i] = {data(b.q),       data(b.k),       data(b.v),
                   data(b.o),       data(b.gate),    data(b.up),
                   data(b.down),    at(b.q.bias),    at(b.k.bias),
                   at(b.v.bias),    at(b.o.bias),    at(b.gate.bias),
                   at(b.up.bias),   at(b.down.bias), at(b.input_norm),
                   at(b.post_norm), at(b.q_norm),    at(b.k_norm),
                   at(b.k_pages),   at(b.v_pages),   static_cast<int>(std::min<int64_t>(b.window, 1 << 30))};
  }
  a->n = static_cast<int>(m.blocks.size());
  a->x = args.x.data, a->y = args.y.data;
  a->cos = args.cos.as<float>(), a->sin = args.sin.as<float>();
  a->slot = args.slots.as<int64_t>(), a->kv_len = args.kv_len.as<int32_t>(), a->pages = args.page_table.as<int32_t>();
  a->hidden = shape.hidden, a->n_inner = shape.inner, a->heads = shape.heads, a->kv_heads = shape.kv_heads;
  a->d = shape.d, a->activation = static_cast<int>(m.activation), a->eps = m.eps, a->scale = m.scale;
  launch_decode_blocks(stream.handle(), *a, kernel.workspace, stream.multiprocessors());
  check_launch("decode_blocks");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<DecodeBlocksArgs> kCandidates[] = {{"sm90", cuda::decline, cuda::run, cuda::workspace}};
}
const KernelList<DecodeBlocksArgs> decode_blocks_cuda = {"decode_blocks", kCandidates};
}  // namespace pmetal::ops
