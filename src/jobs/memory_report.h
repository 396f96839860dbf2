// Memory plans beside what is free, in words.
#pragma once

#include <string>

#include "base/device.h"
#include "train/memory_plan.h"

namespace pmetal::jobs {

// Bytes that are free where `device` computes; nothing where its driver does not say.
std::optional<int64_t> free_memory(Device device);
// bytes of the weights and parameters that a model holds already
int64_t resident_bytes(models::Model& model);
// "1.87 GB: weights 1.19, trained parameters 0.17, activations 0.51"
std::string describe(const train::MemoryPlan& plan);

}  // namespace pmetal::jobs
