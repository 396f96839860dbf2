// The quickstart's recipes: sizes of model and run that fit a machine of a given speed into a few minutes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "jobs/specs/quickstart.h"
#include "tensor/context.h"

namespace pmetal::jobs {

struct RecipeSpec {
  std::string_view name;
  double from_gflops = 0;  // the least speed (bf16 products, all threads) it is chosen for
  // Qwen3 architecture
  int64_t hidden, layers, heads, kv_heads, head_dim = 32, intermediate, vocabulary;
  // pretraining
  int64_t corpus_bytes = 1'500'000;
  int64_t letter_chats = 25'000, other_chats = 2000;  // chats of the task "letters", of each other task in the corpus
  int64_t pretrain_steps, sequence_length = 256, batch_size = 4;
  double pretrain_lr;
  // fine-tuning on a task that pretraining never shows
  std::string_view task = "reverse-letters";
  int letters = 4;  // its difficulty
  int64_t test_questions = 200, tuning_rows = 8000, tuning_steps = 500, tuning_batch = 4;
  int64_t lora_r = 16;
  double tuning_lr;
};

const RecipeSpec& recipe_of(Recipe recipe);  // kSmall, kMedium or kLarge
const RecipeSpec& recipe_for_speed(double gflops);
double measure_gflops(Context& ctx, double seconds);  // bf16 matrix products as the training does them
std::string model_config(const RecipeSpec& recipe);   // config.json

}  // namespace pmetal::jobs
