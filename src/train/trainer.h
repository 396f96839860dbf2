// The training loop: optimizer steps over a loader, with accumulation, clipping, schedules, evaluation, checkpoints
// that resume bit-exactly, and control while it runs. Knows nothing of files of models or adapters: a TrainTarget does.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "train/adaptive_lr.h"
#include "train/flat_parameters.h"
#include "train/micro_batch.h"
#include "train/schedule.h"
#include "train/sequence_loss.h"

namespace pmetal::train {

// What is trained, and how it is written.
class TrainTarget {
 public:
  virtual ~TrainTarget() = default;
  virtual models::Model& model() = 0;
  virtual std::vector<Trainable> trainables() = 0;
  virtual void values_changed() {}  // after each optimizer step
  // Writes what a user loads (adapter or model files) into an existing folder; `master_of` gives the f32 master of a
  // parameter key.
  virtual void save(const std::filesystem::path& folder,
                    const std::function<Tensor(const std::string& key)>& master_of) = 0;
  virtual bool draws_random() const { return false; }  // dropout
  // Forward and backward are the same work on the same memory step after step: nothing is derived from the parameters
  // on the host or kept beside them.
  virtual bool is_recordable() const { return false; }
};

struct TrainOptions {
  int64_t batch_size = 1;    // packed sequences per micro-batch
  int64_t accumulation = 4;  // micro-batches per optimizer step
  int64_t max_steps = 0;     // 0: by epochs
  int64_t total_steps = 1;   // the schedule's length, known or estimated before the start
  double max_grad_norm = 1;  // 0: off
  AdamWOptions adamw;
  Schedule schedule;
  std::optional<AdaptiveLrOptions> adaptive_lr;
  uint64_t seed = 42;
  int64_t recompute_group = 0;  // > 0: blocks are computed again in the backward, so many at a time
  double neftune_alpha = 0;
  ops::HeadLossOptions head;
  bool records = true;  // micro-batches of one shape as graphs, where device and target allow it
  int64_t save_steps = 500, eval_steps = 0;
  int keep_checkpoints = 3;
  std::filesystem::path output;  // folder of checkpoints/; empty: nothing is saved
  std::string config_text;       // of the run: a resume with another one is refused
};

struct StepReport {
  int64_t step = 0, total_steps = 0, tokens = 0;  // tokens: all so far; of this step in step_tokens
  int64_t step_tokens = 0, learned_tokens = 0;
  double epoch = 0, loss = 0, lr = 0, grad_norm = 0, seconds = 0;
  double entropy = 0, token_accuracy = 0;
  // Where the device has a queue, `seconds` goes from the end of one step to the end of the next, optimizer_ms is the
  // host's time to start it, and forward_backward_ms the rest.
  double forward_backward_ms = 0, optimizer_ms = 0, data_ms = 0;
  bool skipped = false;      // non-finite gradient: no update was made
  int64_t replayed = 0;      // micro-batches that ran as recorded graphs
  int64_t memory_bytes = 0;  // peak of the allocator so far
};
struct EvalReport {
  int64_t step = 0, tokens = 0;
  double loss = 0, perplexity = 0, token_accuracy = 0;
};

// What the loop tells and asks. All calls come from the loop's thread.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void on_step(const StepReport&) {}
  virtual void on_eval(const EvalReport&) {}
  virtual void on_checkpoint(const std::filesystem::path&) {}
  virtual void on_best(const std::filesystem::path&) {}  // <output>/checkpoints/best was written
  virtual void on_log(const std::string&) {}
  virtual void on_lr_action(int64_t, const char* /*action*/, double /*lr*/, const std::string& /*text*/) {}
  virtual void on_warning(const std::string&) {}
  virtual bool stop_requested() { return false; }  // finish the step, save, return
};

struct TrainSummary {
  int64_t steps = 0, tokens = 0, skipped = 0;
  double final_loss = 0, best_eval_loss = 0, seconds = 0;
  bool stopped = false;        // on request, before the end
  bool stopped_early = false;  // by the adaptive rate
};

struct CheckpointState;

class Trainer {
 public:
  Trainer(Context& ctx, TrainTarget& target, data::Loader& loader, TrainOptions options, TrainObserver& observer);
  // packed sequences for periodic evaluation
  void set_eval(std::vector<data::PackedSequence> sequences) { eval_ = std::move(sequences); }
  // continues from the newest checkpoint of options.output, or of `from` (a run's folder, its checkpoints folder or one
  // step_N folder); false when there is none
  bool resume(const std::filesystem::path& from = {});
  TrainSummary run();
  FlatParameters& parameters() { return parameters_; }
  // one optimizer step over given micro-batches: what run() does inside, for tests and other loops
  StepReport step(const std::vector<data::PackedSequence>& micro_batches);
  // The same in two parts: queue() starts a step's work, settle() waits for what it gave. At most one step is queued
  // while the one before is not settled.
  struct Queued;
  std::shared_ptr<Queued> queue(const std::vector<data::PackedSequence>& micro_batches);
  StepReport settle(Queued& queued);
  const MicroBatches::Counts& micro_batches() const { return runner_.counts(); }
  EvalReport evaluate();
  void save_checkpoint();
  int64_t steps_done() const { return step_; }

 private:
  bool next_batch(std::vector<data::PackedSequence>& micro_batches);
  template <class Work>
  void with_memory_of_graphs(const Work& work);
  bool looks_at_control() const;
  void poll_control();
  double adapted_rate(double loss);
  CheckpointState state() const;

  Context& ctx_;
  TrainTarget& target_;
  data::Loader& loader_;
  TrainOptions o_;
  TrainObserver& observer_;
  FlatParameters parameters_;
  MicroBatches runner_;
  std::vector<data::PackedSequence> eval_;
  int64_t step_ = 0, tokens_ = 0, skipped_ = 0, evaluated_at_ = -1;  // skipped_: of settled steps
  std::chrono::steady_clock::time_point last_end_;
  double last_loss_ = 0, best_eval_ = 0;
  bool has_best_ = false, control_stop_ = false, control_save_ = false;
  bool adaptive_stop_ = false, went_back_ = false;
  std::optional<double> lr_override_;  // set_lr of the control file
  double lr_factor_ = 1;               // reduce_lr
  // adaptive rate: the rule, and masters and moments at the best mean loss (host; rollback only)
  std::optional<AdaptiveLr> adaptive_;
  Snapshot snapshot_;
};

// mean nll over the learned tokens of some sequences, without gradients
EvalReport evaluate(Context& ctx, models::Model& model, const std::vector<data::PackedSequence>& sequences);

}  // namespace pmetal::train
