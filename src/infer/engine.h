// Engine: continuous batching. Each step is one ragged forward over the decode rows and prefill chunks of many
// requests, limited by a budget of tokens. Admission is optimistic: when pages lack, the latest arrival gives its pages
// back and computes its tokens again later. On the CPU an answer does not depend on batch mates, chunks or preemption,
// bit by bit. One thread drives it: step() is synchronous.
#pragma once

#include <memory>
#include <vector>

#include "infer/request.h"
#include "infer/step_runner.h"
#include "infer/text_stream.h"
#include "models/model.h"
#include "nn/kv_store.h"

namespace pmetal::infer {

struct EngineOptions {
  int64_t max_pages = 0;  // of the KV store, 64 tokens each
  int64_t max_step_tokens = 2048;
  int64_t max_sequences = 256;  // that run at a time
  int64_t max_chunk = 512;      // prompt tokens of one sequence in one step
  int64_t max_context = 0;      // tokens of a sequence; 0: as the model and the store allow
  // On a GPU: answers do not depend on what runs beside them, bit by bit, as long as nobody is preempted (StepRunner).
  // On the CPU that always holds, preemption included, and nothing changes.
  bool batch_invariant = false;
  std::vector<int32_t> eos_ids = {};
  const text::Tokenizer* tokenizer = nullptr;  // null: answers are ids without text
};

struct EngineCounters {
  int64_t steps = 0, prompt_tokens = 0, generated_tokens = 0, preemptions = 0;
};

class Engine;
struct Group;

// A request that runs. Destroying it cancels it: its pages are free at once, or at the end of the current step.
class Generation {
 public:
  Generation(Engine& engine, std::shared_ptr<Group> group) : engine_(&engine), group_(std::move(group)) {}
  ~Generation();
  Generation(const Generation&) = delete;
  bool is_finished() const;

 private:
  Engine* engine_;
  std::shared_ptr<Group> group_;
};

class Engine {
 public:
  // Model and context are borrowed; the model's weights and adapters do not change while the engine lives.
  Engine(Context& ctx, models::Model& model, EngineOptions options);
  ~Engine();

  // Error(kUsage) for what can never run: an empty or too long prompt, ids outside the vocabulary, parameters out of
  // range, an explicit max_tokens beyond the context or the store. The engine outlives the generation.
  [[nodiscard]] std::unique_ptr<Generation> submit(Request request, Listener listener);

  // One forward and what follows from it. False when there is nothing to do.
  bool step();
  // steps until every request has ended
  void run();

  int64_t max_context() const { return max_context_; }  // tokens of one sequence, by model and store
  const EngineCounters& counters() const { return counters_; }
  int64_t free_pages() const { return store_.free_pages(); }
  int64_t total_pages() const { return store_.total_pages(); }
  const EngineOptions& options() const { return options_; }

 private:
  friend class Generation;
  struct Sequence;
  struct Scheduled {
    Sequence* sequence;
    int64_t n;      // tokens in this step
    int64_t pages;  // it newly takes
  };
  struct Plan {
    std::vector<Scheduled> rows;
    int64_t pages = 0;
    bool preempted = false;
  };
  Plan schedule();
  int64_t chunk_of(const Sequence& sequence, int64_t budget) const;
  bool take_pages(Plan& plan, Sequence& sequence, int64_t n);
  void admit(Plan& plan, int64_t budget);
  int64_t choices_behind(size_t head) const;
  void preempt(Sequence& sequence);
  void forward(std::span<const Scheduled> plan, std::vector<Update>& updates, std::vector<Sequence*>& owners);
  struct Row;
  void read_logits(const Tensor& logits, std::vector<Row>& rows);
  Update draw(Row& row);
  void sweep();  // drops what has finished or was cancelled

  Context& ctx_;
  models::Model& model_;
  EngineOptions options_;
  int64_t max_context_;
  nn::KvStore store_;
  StepRunner runner_;
  std::vector<std::unique_ptr<Sequence>> sequences_;  // in order of arrival, choices of a request side by side
  EngineCounters counters_;
  int64_t arrivals_ = 0;
  bool in_step_ = false;
  bool fixed_chunks_;  // where prompts are cut must not depend on what else runs
};

}  // namespace pmetal::infer
