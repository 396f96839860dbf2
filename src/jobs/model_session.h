// What every command that runs a model needs: threads, context, checkpoint, model with weights, adapter.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "adapters/adapter.h"
#include "jobs/context.h"
#include "jobs/specs/common.h"
#include "models/checkpoint.h"

namespace pmetal::jobs {

struct SessionOptions {
  std::string model;
  std::optional<std::string> adapter = std::nullopt;
  ComputeDtype dtype = ComputeDtype::kBF16;
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;
  bool for_training = false;    // all parameters as plain tensors (full fine-tuning)
  bool scale_residual = false;  // new models
  uint64_t seed = 0;            // of random: weights
};

struct ModelSession {
  std::shared_ptr<ThreadPool> threads;
  std::unique_ptr<Context> ctx;
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Model> model;
  std::shared_ptr<adapters::Adapter> adapter;  // attached as number 0
};

// emits the phases resolving_model and loading_model
ModelSession open_session(const JobContext& job, const SessionOptions& options);
DType to_dtype(ComputeDtype dtype);
Device to_device(DeviceChoice choice);
std::string device_name(const Context& ctx);  // of the processor or GPU, as its vendor names it

}  // namespace pmetal::jobs
