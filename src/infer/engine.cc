#include "infer/engine.h"

#include <algorithm>

#include "infer/kv.h"
#include "infer/loop_detector.h"
#include "ops/top_logits.h"

namespace pmetal::infer {
namespace {

constexpr int64_t kMaxPasses = 16;          // requests that may overtake one that lacks pages
constexpr int64_t kMaxPartialPrefills = 2;  // prompts that are begun and not done
constexpr double kWatermark = 0.01;         // part of the pages that admission leaves for running sequences

}  // namespace

// One request: what its choices share.
struct Group {
  Request request;
  Listener listener;
  bool is_cancelled = false;
  int32_t unfinished = 0;
};

struct Engine::Sequence {
  enum class State : uint8_t { kWaiting, kRunning, kFollowing, kDone };  // following: forks once the prompt has run

  std::shared_ptr<Group> group;
  int64_t arrival;
  int32_t choice;
  int64_t max_tokens;
  State state;
  std::vector<int32_t> tokens;  // prompt and output
  nn::SequenceState memory;     // of tokens[0, memory.length())
  Sampler sampler;
  LoopDetector loops;
  std::unique_ptr<TextStream> text;
  int64_t passes = 0;  // how often another was admitted before it while it lacked pages

  int64_t rest() const { return static_cast<int64_t>(tokens.size()) - memory.length(); }
  bool is_running() const { return state == State::kRunning; }
};

Generation::~Generation() {
  group_->is_cancelled = true;
  if (!engine_->in_step_) engine_->sweep();
}
bool Generation::is_finished() const { return group_->unfinished == 0; }

Engine::Engine(Context& ctx, models::Model& model, EngineOptions options)
    : ctx_(ctx),
      model_(model),
      options_(std::move(options)),
      max_context_(options_.max_pages * nn::kPageTokens),
      store_(make_kv_store(ctx, model, options_.max_pages)),
      runner_(ctx, model, store_, options_.batch_invariant && ctx.device().is_cuda()),
      fixed_chunks_(options_.batch_invariant && ctx.device().is_cuda()) {
  for (int64_t limit : {options_.max_context, model.info().max_positions})
    if (limit > 0) max_context_ = std::min(max_context_, limit);
  PMETAL_ASSERT(options_.max_step_tokens > 0 && options_.max_sequences > 0 && options_.max_chunk > 0);
}

Engine::~Engine() = default;

std::unique_ptr<Generation> Engine::submit(Request request, Listener listener) {
  const int64_t vocabulary = model_.info().vocabulary;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) fail(ErrorCode::kUsage, "the prompt has no tokens; give at least one");
  for (int32_t id : request.prompt)
    if (id < 0 || id >= vocabulary)
      fail(ErrorCode::kUsage, "the prompt holds token id {}; the model's vocabulary is {}", id, vocabulary);
  if (prompt + 1 > max_context_)
    fail(ErrorCode::kUsage,
         "the prompt has {} tokens; the context holds {} and at least one must be left for the answer", prompt,
         max_context_);
  if (request.max_tokens && *request.max_tokens < 1)
    fail(ErrorCode::kUsage, "max_tokens: must be 1 or more, is {}", *request.max_tokens);
  if (request.max_tokens && prompt + *request.max_tokens > max_context_)
    fail(ErrorCode::kUsage, "{} prompt tokens and max_tokens {} exceed the context of {}; ask for at most {}", prompt,
         *request.max_tokens, max_context_, max_context_ - prompt);
  if (request.n < 1 || request.n > options_.max_sequences)
    fail(ErrorCode::kUsage, "n: must be 1..{}, is {}", options_.max_sequences, request.n);
  for (const std::string& stop : request.stop)
    if (stop.empty()) fail(ErrorCode::kUsage, "stop: holds an empty text");
  if (!request.stop.empty() && !options_.tokenizer)
    fail(ErrorCode::kUsage, "stop: the model has no tokenizer, so there is no text to look for stop strings in");
  validate(request.sampling, vocabulary);

  auto group = std::make_shared<Group>();
  group->request = std::move(request);
  group->listener = std::move(listener);
  const Request& r = group->request;
  group->unfinished = r.n;
  for (int32_t i = 0; i < r.n; ++i) {
    SamplerSetup setup{.eos_ids = options_.eos_ids, .stop_ids = r.stop_ids, .stream = static_cast<uint32_t>(i)};
    if (options_.tokenizer) setup.vocabulary = options_.tokenizer->vocab_size();
    sequences_.push_back(std::make_unique<Sequence>(Sequence{
        .group = group,
        .arrival = arrivals_,
        .choice = i,
        .max_tokens = r.max_tokens.value_or(max_context_ - prompt),
        .state = i == 0 ? Sequence::State::kWaiting : Sequence::State::kFollowing,
        .tokens = r.prompt,
        .memory = nn::SequenceState(store_),
        .sampler = Sampler(r.sampling, r.prompt, std::move(setup)),
        .loops = {},
        .text = options_.tokenizer ? std::make_unique<TextStream>(*options_.tokenizer, r.prompt, r.stop, r.skip_special)
                                   : nullptr}));
  }
  ++arrivals_;
  return std::make_unique<Generation>(*this, std::move(group));
}

void Engine::sweep() {
  std::erase_if(sequences_, [](const std::unique_ptr<Sequence>& s) {
    return s->state == Sequence::State::kDone || s->group->is_cancelled;
  });
}

// tokens of a sequence in this step; with fixed chunks a step may exceed its budget by part of one
int64_t Engine::chunk_of(const Sequence& s, int64_t budget) const {
  const int64_t n = std::min(s.rest(), options_.max_chunk);
  return fixed_chunks_ ? n : std::min(n, budget);
}

void Engine::preempt(Sequence& s) {
  s.memory = nn::SequenceState(store_);
  s.state = Sequence::State::kWaiting;
  ++counters_.preemptions;
}

// Room for n more tokens of a running sequence, at the cost of later arrivals if need be. False: it had to go itself.
bool Engine::take_pages(Plan& plan, Sequence& sequence, int64_t n) {
  const nn::StepSequence part[] = {
      {.state = &sequence.memory,
       .tokens =
           std::span(sequence.tokens).subspan(static_cast<size_t>(sequence.memory.length()), static_cast<size_t>(n))}};
  plan.rows.push_back({&sequence, n, store_.pages_needed(part)});
  plan.pages += plan.rows.back().pages;
  while (plan.pages > store_.free_pages()) {
    Sequence& victim = **std::find_if(sequences_.rbegin(), sequences_.rend(),
                                      [](const std::unique_ptr<Sequence>& s) { return s->is_running(); });
    preempt(victim);
    plan.preempted = true;
    std::erase_if(plan.rows, [&](const Scheduled& s) {
      if (s.sequence != &victim) return false;
      plan.pages -= s.pages;
      return true;
    });
    if (&victim == &sequence) return false;
  }
  return true;
}

// choices of a request that wait for the prompt that sequences_[head] runs
int64_t Engine::choices_behind(size_t head) const {
  int64_t n = 0;
  for (size_t i = head + 1; i < sequences_.size() && sequences_[i]->group == sequences_[head]->group; ++i)
    n += sequences_[i]->state == Sequence::State::kFollowing;
  return n;
}

void Engine::admit(Plan& plan, int64_t budget) {
  int64_t rows = 0, partial = 0, promised = plan.pages;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& s = *sequences_[i];
    if (!s.is_running()) continue;
    rows += 1 + choices_behind(i);
    promised +=
        nn::KvStore::pages_for(static_cast<int64_t>(s.tokens.size())) - nn::KvStore::pages_for(s.memory.length());
    partial += s.rest() > 1;
  }
  const auto watermark = static_cast<int64_t>(static_cast<double>(store_.total_pages()) * kWatermark);
  std::vector<Sequence*> blocked;
  for (size_t i = 0; i < sequences_.size() && budget > 0 && partial < kMaxPartialPrefills; ++i) {
    Sequence& s = *sequences_[i];
    if (s.state != Sequence::State::kWaiting) continue;
    const int64_t choices = 1 + choices_behind(i);
    // A prefix cache would give `s.memory` its first pages here.
    const int64_t pages = nn::KvStore::pages_for(static_cast<int64_t>(s.tokens.size()));
    if (rows + choices > options_.max_sequences ||
        promised + pages + (rows > 0 ? watermark : 0) > store_.free_pages()) {
      if (s.passes >= kMaxPasses) break;  // nobody overtakes it any more
      blocked.push_back(&s);
      continue;
    }
    for (Sequence* b : blocked) ++b->passes;
    s.passes = 0;
    s.state = Sequence::State::kRunning;
    const int64_t n = chunk_of(s, budget);
    plan.rows.push_back({&s, n, pages});
    plan.pages += pages;
    budget -= n;
    promised += pages;
    rows += choices;
    partial += n < s.rest();
  }
}

Engine::Plan Engine::schedule() {
  Plan plan;
  int64_t budget = options_.max_step_tokens;
  for (const bool decode : {true, false})  // decode rows cost one token each: first
    for (size_t i = 0; i < sequences_.size() && budget > 0; ++i) {
      Sequence& s = *sequences_[i];
      if (!s.is_running() || (s.rest() == 1) != decode) continue;
      const int64_t n = chunk_of(s, budget);
      if (take_pages(plan, s, n)) budget -= n;
    }
  if (!plan.preempted) admit(plan, budget);
  return plan;
}

// A row of logits that a token is drawn from: its token where the largest logits decided it, else its logits.
struct Engine::Row {
  Sequence* sequence;
  int64_t index;
  std::optional<Sampled> token = {};
  std::vector<float> logits = {};
};

// A device draws what it can; of other rows the few largest logits are read, and whole rows only where those do not do.
void Engine::read_logits(const Tensor& logits, std::vector<Row>& rows) {
  const int64_t vocabulary = logits.dim(1);
  std::vector<ops::DrawRow> draws;
  std::vector<Row*> drawn;
  if (!logits.device().is_cpu())
    for (Row& row : rows)
      if (auto draw = row.sequence->sampler.device_draw(vocabulary)) {
        draw->row = static_cast<int32_t>(row.index);
        draws.push_back(*draw);
        drawn.push_back(&row);
      }
  const std::vector<int32_t> tokens = ops::draw(ctx_, logits, draws);
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] >= 0) drawn[i]->token = Sampled{.id = tokens[i], .top = {}};
  int64_t wanted = 0;
  for (const Row& row : rows)
    if (!row.token) wanted = std::max(wanted, row.sequence->sampler.top_wanted());
  if (wanted > 0) {
    int64_t n = 0;
    for (const Row& row : rows) n = std::max(n, row.index + 1);
    const std::vector<ops::TopLogits> tops = ops::top_logits(ctx_, logits, n, wanted);
    if (!tops.empty())
      ctx_.threads().parallel_for(static_cast<int64_t>(rows.size()), 4, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          Row& row = rows[static_cast<size_t>(i)];
          const ops::TopLogits& top = tops[static_cast<size_t>(row.index)];
          if (row.token || !top.is_whole || row.sequence->sampler.top_wanted() == 0) continue;
          std::vector<Candidate> candidates;
          for (const auto& [id, z] : top.pairs) candidates.push_back({z, id});
          row.token = row.sequence->sampler.sample_top(std::move(candidates), top.rest_below, vocabulary);
        }
      });
  }
  const auto missing = std::count_if(rows.begin(), rows.end(), [](const Row& row) { return !row.token; });
  if (missing == 0) return;
  const Tensor all = missing > 1 || logits.device().is_cpu() ? ops::to_host(ctx_, logits) : Tensor();
  for (Row& row : rows) {
    if (row.token) continue;
    const Tensor one = all ? Tensor() : ops::to_host(ctx_, logits.narrowed(0, row.index, 1));
    const float* at = all ? all.data<float>() + row.index * vocabulary : one.data<float>();
    row.logits.assign(at, at + vocabulary);
  }
}

Update Engine::draw(Row& row) {
  Sequence& s = *row.sequence;
  const Request& r = s.group->request;
  Update u{.choice = s.choice};
  const auto finish = [&](Finish f) {
    u.finish = std::move(f);
    if (s.text) u.text += s.text->flush();
  };
  try {
    u.token = row.token ? *row.token : s.sampler.sample(row.logits);
  } catch (const Error& e) {
    finish({.reason = Finish::Reason::kError, .message = e.what()});
    return u;
  }
  const int32_t id = u.token->id;
  s.sampler.accept(id);
  s.tokens.push_back(id);
  const int64_t emitted = s.sampler.history().output_length();
  const auto is_in = [&](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  if (is_in(options_.eos_ids) || is_in(r.stop_ids)) {
    finish({.reason = Finish::Reason::kStop, .stop_id = id});
    return u;
  }
  if (s.text) {
    u.text = s.text->push(id, emitted >= r.sampling.min_tokens);
    if (s.text->stop()) {
      finish({.reason = Finish::Reason::kStop, .stop_string = s.text->stop()});
      return u;
    }
  }
  if (s.loops.push(id) && r.detect_repetition)
    finish({.reason = Finish::Reason::kStop, .is_repetition = true});
  else if (emitted >= s.max_tokens)
    finish({.reason = Finish::Reason::kLength});
  if (u.finish && s.text && s.text->stop()) u.finish = Finish{.stop_string = s.text->stop()};
  return u;
}

void Engine::forward(std::span<const Scheduled> plan, std::vector<Update>& updates, std::vector<Sequence*>& owners) {
  std::vector<nn::StepSequence> steps;
  for (const Scheduled& s : plan) {
    Sequence& q = *s.sequence;
    const bool is_last = s.n == q.rest();
    steps.push_back(
        {.state = &q.memory,
         .tokens = std::span(q.tokens).subspan(static_cast<size_t>(q.memory.length()), static_cast<size_t>(s.n)),
         .adapter = q.group->request.adapter,
         .no_rows = !is_last});
    if (q.sampler.history().output_length() == 0) counters_.prompt_tokens += s.n;
  }
  const StepRunner::Result step = runner_.run(steps);
  ++counters_.steps;
  if (!step.logits) return;
  std::vector<Row> rows;
  for (size_t i = 0; i < plan.size(); ++i) {
    if (step.first_row[i] < 0) continue;
    Sequence& first = *plan[i].sequence;
    rows.push_back({&first, step.first_row[i]});
    // the prompt has run: the other choices begin with what it left
    if (first.choice == 0)
      for (const auto& s : sequences_)
        if (s->group == first.group && s->state == Sequence::State::kFollowing) {
          s->memory = first.memory.fork();
          s->state = Sequence::State::kRunning;
          rows.push_back({s.get(), step.first_row[i]});
        }
  }
  read_logits(step.logits, rows);
  updates.resize(rows.size());
  ctx_.threads().parallel_for(static_cast<int64_t>(rows.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) updates[static_cast<size_t>(i)] = draw(rows[static_cast<size_t>(i)]);
  });
  for (const Row& row : rows) owners.push_back(row.sequence);
}

bool Engine::step() {
  PMETAL_ASSERT(!in_step_, "Engine::step called from a listener");
  sweep();
  const Plan plan = schedule();
  if (plan.rows.empty()) {
    PMETAL_ASSERT(sequences_.empty(), "{} sequences wait and none can run", sequences_.size());
    return false;
  }
  std::vector<Update> updates;
  std::vector<Sequence*> owners;
  in_step_ = true;
  try {
    forward(plan.rows, updates, owners);
  } catch (...) {
    in_step_ = false;
    throw;
  }
  for (size_t i = 0; i < updates.size(); ++i) {
    Sequence& s = *owners[i];
    counters_.generated_tokens += updates[i].token.has_value();
    if (updates[i].finish) {
      s.state = Sequence::State::kDone;
      s.memory = nn::SequenceState(store_);
      --s.group->unfinished;
    }
    if (!s.group->is_cancelled && s.group->listener) s.group->listener(updates[i]);
  }
  in_step_ = false;
  sweep();
  return true;
}

void Engine::run() {
  while (step()) {
  }
}

}  // namespace pmetal::infer
