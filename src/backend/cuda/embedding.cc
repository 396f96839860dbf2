// Launchers of embedding and embedding_backward.
#include "ops/embedding.h"

#include "backend/cuda/dense.h"
#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

const char* decline(const ops::EmbeddingArgs& args, const KernelContext&) {
  if (args.weight && !args.weight->format->is_dense) return "the weight's format has no CUDA kernel";
  return is_double(args.y.dtype) ? "f64 runs on the CPU" : nullptr;
}

void forward(const ops::EmbeddingArgs& args, const KernelContext& kernel) {
  if (args.y.numel() == 0) return;
  const View table = args.weight ? dense_view(*args.weight) : args.dense;
  launch_embedding(stream_of(kernel).handle(), args.ids, table, args.y, args.scale, pack_of({&table, &args.y}));
  check_launch("embedding");
}

void backward(const ops::EmbeddingBackwardArgs& args, const KernelContext& kernel) {
  if (args.dy.numel() == 0) return;
  launch_scatter_add(stream_of(kernel).handle(), args.dy, args.ids, args.dweight, args.scale, args.padding_index);
  check_launch("embedding_backward");
}

const char* decline_backward(const ops::EmbeddingBackwardArgs& args, const KernelContext&) {
  return is_double(args.dweight.dtype) ? "f64 runs on the CPU" : nullptr;
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<EmbeddingArgs> kForward[] = {{"rows", cuda::decline, cuda::forward}};
const Candidate<EmbeddingBackwardArgs> kBackward[] = {{"ordered", cuda::decline_backward, cuda::backward}};
}  // namespace
const KernelList<EmbeddingArgs> embedding_cuda = {"embedding", kForward};
const KernelList<EmbeddingBackwardArgs> embedding_backward_cuda = {"embedding_backward", kBackward};
}  // namespace pmetal::ops
