// Launchers of steps that the device decides; see optim.cu.
#pragma once

#include "backend/cuda/kernels.h"

namespace pmetal::cuda {

// decision [4]: as ops::StepDecision
void launch_step_decision(StreamHandle stream, const double* squares, const float* loss, double max_norm,
                          double* decision);
// a.step_size, a.root_scale and a.grad_scale are not read
void launch_decided_adamw(StreamHandle stream, const AdamWLaunch& a, double lr, double beta1, double beta2,
                          const double* decision);

}  // namespace pmetal::cuda
