// Products for kernels that are made of others: the library's where it has one, else the plain one.
#pragma once

#include "backend/cuda/lt.h"
#include "ops/linear.h"

namespace pmetal::cuda {

// workspace: kProductWorkspace bytes
void multiply(const ops::MatmulArgs& args, const View& bias, Stream& stream, void* workspace);

}  // namespace pmetal::cuda
