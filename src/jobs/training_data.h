// What `pmetal train` learns from: one dataset, or several mixed by weight; held in memory as tokens, or streamed in
// windows of rows so that memory does not grow with the files.
#pragma once

#include <memory>
#include <string>

#include "data/loader.h"
#include "jobs/context.h"
#include "jobs/specs/train.h"

namespace pmetal::jobs {

struct TrainingData {
  std::unique_ptr<data::Loader> loader;
  bool is_streamed = false;
  int64_t n_examples = 0, n_tokens = 0;  // 0 while streamed: nobody has counted
  int64_t sequence_length = 0;           // the longest sequence, packed or not
};

data::ColumnFlags column_flags(const TrainOptions& o);

// `vocabulary`: ready tokens beyond it are an error that names the dataset. `pool` is borrowed by the loader.
TrainingData open_training_data(const TrainOptions& o, const JobContext& job,
                                const std::shared_ptr<data::ExampleBuilder>& builder, int64_t vocabulary,
                                int64_t max_seq_len, ThreadPool* pool);

// every token of every example is one of the vocabulary
void check_tokens(const std::vector<data::Example>& examples, const std::string& dataset, int64_t vocabulary);

}  // namespace pmetal::jobs
