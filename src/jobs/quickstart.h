// What `pmetal quickstart` does, for any size of model and run: text of our own making, a tokenizer, a model trained
// from random weights, a LoRA adapter for a task that the pretraining never showed, exact-match accuracy before and
// after.
#pragma once

#include <filesystem>

#include "jobs/context.h"
#include "jobs/recipes.h"

namespace pmetal::jobs {

struct QuickstartResult {
  double before = 0, after = 0;  // share of unseen questions answered exactly
  std::filesystem::path model, adapter;
};

// Writes text/, base/ and adapter/ below options.output_dir; results for people go to job.data().
QuickstartResult quickstart(const QuickstartOptions& options, const RecipeSpec& recipe, JobContext& job);

}  // namespace pmetal::jobs
