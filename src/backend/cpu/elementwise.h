// Candidates of the primitive ops' tables on the CPU.
#pragma once

#include "ops/elementwise.h"

namespace pmetal::cpu {

void unary_plain(const ops::UnaryArgs& args, const KernelContext& kernel);
void unary_backward_plain(const ops::UnaryArgs& args, const KernelContext& kernel);
void binary_plain(const ops::BinaryArgs& args, const KernelContext& kernel);
void row_reduce_plain(const ops::RowReduceArgs& args, const KernelContext& kernel);
int64_t row_reduce_plain_workspace(const ops::RowReduceArgs& args, const KernelContext& kernel);
void row_reduce_backward_plain(const ops::RowReduceArgs& args, const KernelContext& kernel);
void index_rows_plain(const ops::IndexArgs& args, const KernelContext& kernel);
void dropout_plain(const ops::DropoutArgs& args, const KernelContext& kernel);
void transfer_plain(const ops::TransferArgs& args, const KernelContext& kernel);

}  // namespace pmetal::cpu
