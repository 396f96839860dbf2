// Training checkpoints: <output>/checkpoints/step_N/ with what a user loads (adapter or model), optimizer.safetensors
// (<key>.__master, .__m, .__v in f32), metadata.json and loader position; `latest` names the newest. A folder appears
// whole or not at all. best_snapshot.safetensors, in runs that may go back, has the same of the best mean loss.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "train/trainer.h"

namespace pmetal::train {

struct CheckpointState {
  int64_t step = 0, tokens = 0, skipped = 0;
  double epoch = 0, loss = 0, lr = 0;
  bool has_best = false;
  double best_eval_loss = 0;
  std::optional<double> lr_override;
  double lr_factor = 1;
  uint64_t seed = 0;
  std::string adaptive_lr;  // AdaptiveLr::state(); empty without
  std::string loader;       // Loader::state()
  std::string config;       // of the run
};

// returns the folder; keeps the newest `keep`
std::filesystem::path save_checkpoint(Context& ctx, const std::filesystem::path& checkpoints,
                                      const CheckpointState& state, const FlatParameters& parameters,
                                      const Snapshot& snapshot, TrainTarget& target, int keep);
// <checkpoints>/best: what a user loads as it was at the best evaluation, and metadata.json. Not a checkpoint to resume
// from.
std::filesystem::path save_best(Context& ctx, const std::filesystem::path& checkpoints, const CheckpointState& state,
                                const FlatParameters& parameters, TrainTarget& target);
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& checkpoints);
// Overwrites masters and moments. Error(kInvalidInput) when tensors are missing or of another shape, or when the run's
// configuration differs, naming the first difference.
CheckpointState load_checkpoint(Context& ctx, const std::filesystem::path& folder, FlatParameters& parameters,
                                Snapshot& snapshot, const std::string& config);

}  // namespace pmetal::train
