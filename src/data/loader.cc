#include "data/loader.h"

#include <algorithm>
#include <numeric>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rng.h"

namespace pmetal::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kStateVersion = 1;

Json parse_state(const std::string& text) {
  Json state = Json::parse(text, nullptr, false);
  if (state.is_discarded() || !state.is_object())
    fail(ErrorCode::kInvalidInput, "the data loader's state in the checkpoint is not a JSON object");
  return state;
}

template <class T>
T field(const Json& state, const char* name) {
  const auto it = state.find(name);
  if (it == state.end()) fail(ErrorCode::kInvalidInput, "the data loader's state has no field \"{}\"", name);
  try {
    return it->get<T>();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorCode::kInvalidInput, "the data loader's state has {} as \"{}\"", it->dump(), name);
  }
}

// What must be equal for a position to mean the same sequence.
Json identity_of(const LoaderOptions& o, const std::string& fingerprint, int64_t window_rows) {
  return Json{{"version", kStateVersion},
              {"data", fingerprint},
              {"seed", o.seed},
              {"shuffle", o.shuffle},
              {"pack", o.pack},
              {"max_length", o.max_length},
              {"split_long", o.long_documents == LongDocuments::kSplit},
              {"window_rows", window_rows},
              {"world", o.world}};
}

void check_identity(const Json& state, const Json& expected) {
  for (const auto& [name, value] : expected.items()) {
    const auto it = state.find(name);
    if (it == state.end() || *it != value)
      fail(ErrorCode::kInvalidInput,
           "cannot continue in the data: \"{}\" is {} in the checkpoint and {} now; use the same data and options, or "
           "force the resume",
           name, it == state.end() ? "absent" : it->dump(), value.dump());
  }
}

// Some examples and the order in which they leave: each entry of `order` is one sequence.
struct Window {
  std::vector<Example> examples;
  std::vector<std::vector<int64_t>> order;
};

void cut_examples(std::vector<Example>& examples, const LoaderOptions& options) {
  if (std::none_of(examples.begin(), examples.end(), [&](const Example& e) { return e.length() > options.max_length; }))
    return;
  std::vector<Example> cut;
  for (auto& e : examples)
    for (auto& piece : cut_to_capacity(std::move(e), options.max_length, options.long_documents))
      if (piece.n_learned() > 0) cut.push_back(std::move(piece));
  examples = std::move(cut);
}

// Each epoch permutes the documents first, so that equal lengths meet other neighbours, then packs, then permutes the
// sequences. The number of sequences depends on the lengths alone and is the same in every epoch.
void arrange(Window& window, const LoaderOptions& options, uint64_t epoch, uint64_t index) {
  const auto n = static_cast<int64_t>(window.examples.size());
  const auto documents = shuffled_order(n, options.seed, epoch, index * 2, options.shuffle);
  std::vector<std::vector<int64_t>> sequences;
  if (options.pack) {
    std::vector<int64_t> lengths;
    for (int64_t d : documents) lengths.push_back(window.examples[static_cast<size_t>(d)].length());
    sequences = pack_best_fit(lengths, options.max_length);
    for (auto& s : sequences) {
      std::sort(s.begin(), s.end());
      for (int64_t& d : s) d = documents[static_cast<size_t>(d)];
    }
    if (!options.shuffle) std::sort(sequences.begin(), sequences.end());
  } else {
    for (int64_t d : documents) sequences.push_back({d});
  }
  const auto order = shuffled_order(static_cast<int64_t>(sequences.size()), options.seed, epoch, index * 2 + 1,
                                    options.shuffle && options.pack);
  window.order.clear();
  for (int64_t i : order) window.order.push_back(std::move(sequences[static_cast<size_t>(i)]));
}

PackedSequence assemble(const Window& window, int64_t index) {
  PackedSequence out;
  for (int64_t d : window.order[static_cast<size_t>(index)]) out.append(window.examples[static_cast<size_t>(d)]);
  return out;
}

// The sequence that `rank` takes of the round beginning at `first`.
PackedSequence take(const Window& window, int64_t first, int rank) {
  if (first + rank < static_cast<int64_t>(window.order.size())) return assemble(window, first + rank);
  PackedSequence filler = assemble(window, first);
  std::fill(filler.labels.begin(), filler.labels.end(), kIgnore);
  return filler;
}

void check_options(const LoaderOptions& o) {
  if (o.max_length < 2) fail(ErrorCode::kUsage, "the sequence length is {}; it must be at least 2", o.max_length);
  if (o.world < 1 || o.rank < 0 || o.rank >= o.world)
    fail(ErrorCode::kUsage, "rank {} of {} is not a rank", o.rank, o.world);
}

class MemoryLoader final : public Loader {
 public:
  MemoryLoader(std::vector<Example> examples, std::string fingerprint, LoaderOptions options)
      : options_(options), fingerprint_(std::move(fingerprint)) {
    check_options(options_);
    window_.examples = std::move(examples);
    cut_examples(window_.examples, options_);
    if (window_.examples.empty())
      fail(ErrorCode::kInvalidInput, "the dataset holds no sample with anything to learn from");
    arrange(window_, options_, 0, 0);
  }
  bool next(PackedSequence& out) override {
    if (next_ >= static_cast<int64_t>(window_.order.size())) {
      if (options_.epochs > 0 && epoch_ + 1 >= options_.epochs) {
        epoch_ = options_.epochs;
        return false;
      }
      ++epoch_;
      next_ = 0;
      arrange(window_, options_, static_cast<uint64_t>(epoch_), 0);
    }
    out = take(window_, next_, options_.rank);
    next_ += options_.world;
    return true;
  }
  int64_t epoch() const override { return epoch_; }
  double progress() const override {
    if (options_.epochs > 0 && epoch_ == options_.epochs) return static_cast<double>(epoch_);
    const auto n = static_cast<double>(window_.order.size());
    return static_cast<double>(epoch_) + std::min(static_cast<double>(next_) / n, 1.0);
  }
  std::optional<int64_t> sequences_per_epoch() const override {
    return (static_cast<int64_t>(window_.order.size()) + options_.world - 1) / options_.world;
  }
  std::string state() const override {
    Json state = identity_of(options_, fingerprint_, 0);
    state["epoch"] = epoch_;
    state["next"] = next_;
    return state.dump();
  }
  void restore(const std::string& text, bool force) override {
    const Json state = parse_state(text);
    if (!force) check_identity(state, identity_of(options_, fingerprint_, 0));
    epoch_ = field<int64_t>(state, "epoch");
    next_ = field<int64_t>(state, "next");
    if (epoch_ < 0 || next_ < 0) fail(ErrorCode::kInvalidInput, "the data loader's state has a negative position");
    arrange(window_, options_, static_cast<uint64_t>(epoch_), 0);
  }

 private:
  LoaderOptions options_;
  std::string fingerprint_;
  Window window_;
  int64_t epoch_ = 0, next_ = 0;
};

class StreamLoader final : public Loader {
 public:
  StreamLoader(StreamInput input, LoaderOptions options, ThreadPool* pool)
      : input_(std::move(input)), options_(options), pool_(pool), fingerprint_(fingerprint(input_.files)) {
    check_options(options_);
    if (input_.window_rows < 1) fail(ErrorCode::kUsage, "the shuffle buffer must hold at least one row");
    source_ = open_files(input_.files);
  }
  bool next(PackedSequence& out) override {
    if (is_finished()) return false;
    while (next_ >= static_cast<int64_t>(window_.order.size()))
      if (!advance()) return false;
    out = take(window_, next_, options_.rank);
    next_ += options_.world;
    return true;
  }
  int64_t epoch() const override { return epoch_; }
  double progress() const override { return static_cast<double>(epoch_); }
  std::optional<int64_t> sequences_per_epoch() const override { return std::nullopt; }
  std::string state() const override {
    Json state = identity_of(options_, fingerprint_, input_.window_rows);
    state["epoch"] = epoch_;
    state["row"] = window_row_;
    state["next"] = next_;
    return state.dump();
  }
  void restore(const std::string& text, bool force) override {
    const Json state = parse_state(text);
    if (!force) check_identity(state, identity_of(options_, fingerprint_, input_.window_rows));
    epoch_ = field<int64_t>(state, "epoch");
    window_row_ = field<int64_t>(state, "row");
    const auto next = field<int64_t>(state, "next");
    if (epoch_ < 0 || window_row_ < 0 || next < 0)
      fail(ErrorCode::kInvalidInput, "the data loader's state has a negative position");
    source_ = open_files(input_.files);
    source_->skip(window_row_);
    window_ = {};
    rows_in_window_ = 0;
    next_ = 0;
    if (is_finished()) return;
    fill();
    next_ = next;
  }

 private:
  bool is_finished() const { return options_.epochs > 0 && epoch_ >= options_.epochs; }
  // Reads the next window; at the end of the data the first of the next epoch. False after the last epoch.
  bool advance() {
    window_row_ += rows_in_window_;
    fill();
    if (rows_in_window_ > 0) return true;
    if (window_row_ == 0 || !learned_any_)
      fail(ErrorCode::kInvalidInput, "{}: no sample with anything to learn from", input_.files.front().string());
    ++epoch_;
    window_row_ = 0;
    if (is_finished()) return false;
    source_ = open_files(input_.files);
    fill();
    return true;
  }
  void fill() {
    next_ = 0;
    const int64_t before = rows_read_;
    CountingSource counting(*source_, rows_read_);
    window_.examples = read_examples(counting, input_.flags, *input_.builder, pool_, input_.window_rows);
    rows_in_window_ = rows_read_ - before;
    cut_examples(window_.examples, options_);
    arrange(window_, options_, static_cast<uint64_t>(epoch_), static_cast<uint64_t>(window_row_));
    learned_any_ = learned_any_ || !window_.order.empty();
  }
  struct CountingSource final : Source {
    CountingSource(Source& inner, int64_t& rows) : inner(inner), rows(rows) {}
    bool next(Row& row) override {
      const bool ok = inner.next(row);
      rows += ok;
      return ok;
    }
    Source& inner;
    int64_t& rows;
  };

  StreamInput input_;
  LoaderOptions options_;
  ThreadPool* pool_;
  std::string fingerprint_;
  std::unique_ptr<Source> source_;
  Window window_;
  bool learned_any_ = false;
  int64_t epoch_ = 0, window_row_ = 0, rows_in_window_ = 0, rows_read_ = 0, next_ = 0;
};

class Mixture final : public Loader {
 public:
  Mixture(std::vector<MixturePart> parts, int64_t epochs) : parts_(std::move(parts)), epochs_(epochs) {
    double sum = 0;
    for (const auto& p : parts_) {
      if (!(p.weight > 0)) fail(ErrorCode::kUsage, "a dataset's weight is {}; weights must be above 0", p.weight);
      sum += p.weight;
    }
    if (parts_.empty()) fail(ErrorCode::kUsage, "no dataset to mix");
    int64_t total = 0;
    bool all_known = true;
    for (auto& p : parts_) {
      p.weight /= sum;
      const auto n = p.loader->sequences_per_epoch();
      all_known = all_known && n.has_value();
      total += n.value_or(0);
    }
    if (all_known) size_ = total;
    if (epochs_ > 0 && !size_)
      fail(ErrorCode::kUsage, "streamed datasets have no known size; give a number of steps instead of epochs");
    taken_.assign(parts_.size(), 0);
  }
  bool next(PackedSequence& out) override {
    if (epochs_ > 0 && given_ >= epochs_ * *size_) return false;
    size_t best = 0;
    double behind = -1e300;
    for (size_t k = 0; k < parts_.size(); ++k) {
      const double d = static_cast<double>(given_ + 1) * parts_[k].weight - static_cast<double>(taken_[k]);
      if (d > behind) {
        behind = d;
        best = k;
      }
    }
    if (!parts_[best].loader->next(out)) return false;
    ++taken_[best];
    ++given_;
    return true;
  }
  int64_t epoch() const override { return size_ ? given_ / *size_ : 0; }
  double progress() const override { return size_ ? static_cast<double>(given_) / static_cast<double>(*size_) : 0; }
  std::optional<int64_t> sequences_per_epoch() const override { return size_; }
  std::string state() const override {
    Json state{{"version", kStateVersion}, {"given", given_}, {"taken", taken_}};
    for (const auto& p : parts_) {
      state["weights"].push_back(p.weight);
      state["parts"].push_back(Json::parse(p.loader->state()));
    }
    return state.dump();
  }
  void restore(const std::string& text, bool force) override {
    const Json state = parse_state(text);
    const auto weights = field<std::vector<double>>(state, "weights");
    const auto taken = field<std::vector<int64_t>>(state, "taken");
    const auto parts = field<std::vector<Json>>(state, "parts");
    bool is_same = weights.size() == parts_.size() && parts.size() == parts_.size() && taken.size() == parts_.size();
    if (!is_same)
      fail(ErrorCode::kInvalidInput, "the checkpoint mixed {} datasets, now there are {}", weights.size(),
           parts_.size());
    for (size_t k = 0; k < parts_.size(); ++k)
      if (weights[k] != parts_[k].weight && !force)
        fail(ErrorCode::kInvalidInput, "dataset {} had weight {} in the checkpoint and has {} now", k, weights[k],
             parts_[k].weight);
    given_ = field<int64_t>(state, "given");
    taken_ = taken;
    for (size_t k = 0; k < parts_.size(); ++k) parts_[k].loader->restore(parts[k].dump(), force);
  }

 private:
  std::vector<MixturePart> parts_;
  int64_t epochs_;
  std::optional<int64_t> size_;
  std::vector<int64_t> taken_;
  int64_t given_ = 0;
};

}  // namespace

std::vector<int64_t> shuffled_order(int64_t n, uint64_t seed, uint64_t epoch, uint64_t window, bool shuffle) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  if (!shuffle) return order;
  PhiloxStream random(seed, RngPurpose::kShuffle, epoch << 40 ^ window);
  for (int64_t i = n - 1; i > 0; --i)
    std::swap(order[static_cast<size_t>(i)], order[random.below(static_cast<uint64_t>(i) + 1)]);
  return order;
}

std::vector<Example> read_examples(Source& source, const ColumnFlags& flags, const ExampleBuilder& builder,
                                   ThreadPool* pool, int64_t max_samples) {
  constexpr int64_t kBatchRows = 1024;  // rows held as text at a time
  constexpr int64_t kGrain = 16;
  std::vector<Example> examples;
  std::vector<Row> rows;
  std::vector<std::optional<Example>> built;
  int64_t left = max_samples > 0 ? max_samples : INT64_MAX;
  for (bool more = true; more && left > 0;) {
    rows.clear();
    Row row;
    while (static_cast<int64_t>(rows.size()) < std::min(kBatchRows, left) && (more = source.next(row)))
      rows.push_back(std::move(row));
    left -= static_cast<int64_t>(rows.size());
    const auto n = static_cast<int64_t>(rows.size());
    built.assign(rows.size(), std::nullopt);
    const auto work = [&](int64_t begin, int64_t end) {
      RecordParser parser(flags);
      for (int64_t i = begin; i < end; ++i)
        built[static_cast<size_t>(i)] = builder.build(parser.parse(rows[static_cast<size_t>(i)]));
    };
    if (pool)
      pool->parallel_for(n, kGrain, work);
    else
      work(0, n);
    for (auto& b : built)
      if (b) examples.push_back(std::move(*b));
  }
  return examples;
}

std::unique_ptr<Loader> make_loader(std::vector<Example> examples, std::string fingerprint, LoaderOptions options) {
  return std::make_unique<MemoryLoader>(std::move(examples), std::move(fingerprint), options);
}
std::unique_ptr<Loader> make_stream_loader(StreamInput input, LoaderOptions options, ThreadPool* pool) {
  return std::make_unique<StreamLoader>(std::move(input), options, pool);
}
std::unique_ptr<Loader> make_mixture(std::vector<MixturePart> parts, int64_t epochs) {
  return std::make_unique<Mixture>(std::move(parts), epochs);
}

}  // namespace pmetal::data
