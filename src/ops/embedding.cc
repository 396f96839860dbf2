#include "ops/embedding.h"

#include "ops/common.h"
#include "ops/elementwise.h"

namespace pmetal::ops {
namespace {

void check_ids(const Tensor& ids) {
  require(ids.rank() == 1 && ids.dtype() == DType::kI32, "[embedding] ids must be [tokens] i32, are {} {}",
          ids.shape().to_string(), name_of(ids.dtype()));
}

}  // namespace

Tensor embedding(Context& ctx, const Tensor& ids, const quant::Weight& weight, DType dtype, float scale) {
  check_ids(ids);
  Tensor y = ctx.empty({ids.dim(0), weight.in}, dtype);
  dispatch(ctx, embedding_cpu, embedding_cuda, EmbeddingArgs{ids.view(), &weight, {}, y.view(), scale});
  return y;
}

Tensor embedding_dense(Context& ctx, const Tensor& ids, const Tensor& weight, DType dtype, float scale,
                       int64_t padding_index) {
  check_ids(ids);
  require(weight.rank() == 2, "[embedding] the table must be [vocabulary, n], is {}", weight.shape().to_string());
  Tensor y = ctx.empty({ids.dim(0), weight.dim(1)}, dtype);
  dispatch(ctx, embedding_cpu, embedding_cuda, EmbeddingArgs{ids.view(), nullptr, weight.view(), y.view(), scale});
  if (ctx.records({&weight})) {
    const Tensor* inputs[] = {&weight};
    Tensor* outputs[] = {&y};
    ctx.tape()->record("embedding_dense", inputs, outputs,
                       [ids, shape = weight.shape(), dtype = wide(weight.dtype()), scale, padding_index](
                           Context& c, std::span<const Tensor> grads, GradSink& sink) {
                         Tensor dweight = sink.destination(0);
                         const bool direct = dweight.defined() && dweight.is_contiguous();
                         if (direct) {
                           dweight = dweight.reshaped(shape);
                         } else {
                           dweight = c.empty(shape, dtype);
                           fill(c, dweight, 0);
                         }
                         dispatch(
                             c, embedding_backward_cpu, embedding_backward_cuda,
                             EmbeddingBackwardArgs{ids.view(), grads[0].view(), dweight.view(), scale, padding_index});
                         if (!direct) sink.add(0, dweight);
                       });
  }
  return y;
}

}  // namespace pmetal::ops
