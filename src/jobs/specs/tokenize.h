// Options of `pmetal tokenize`: text to token shards for pretraining.
#pragma once

#include <optional>
#include <string>

#include "jobs/specs/common.h"

namespace pmetal::jobs {

struct TokenizeJobOptions {
  std::string input;
  std::string output_dir;
  std::string tokenizer;
  std::string text_column = "text";
  int64_t docs_per_shard = 10000;
  std::optional<int64_t> eos_token_id;
  bool overwrite = false;
  int64_t threads = 0;
};

}  // namespace pmetal::jobs
