// Candidates of `embedding` and `embedding_backward` on the CPU.
#pragma once

#include "ops/embedding.h"

namespace pmetal::cpu {

void embedding_plain(const ops::EmbeddingArgs& args, const KernelContext& kernel);
int64_t embedding_plain_workspace(const ops::EmbeddingArgs& args, const KernelContext& kernel);
void embedding_backward_plain(const ops::EmbeddingBackwardArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
