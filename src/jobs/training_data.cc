#include "jobs/training_data.h"

#include <algorithm>

#include "base/error.h"
#include "jobs/hub_names.h"

namespace pmetal::jobs {
namespace {

constexpr int64_t kStreamAbove = int64_t{1} << 30;  // bytes of files; as tokens they are of that order in memory
constexpr int64_t kSampleRows = 4096;               // by which the packing length is chosen while streaming

struct Part {
  std::string name;
  double weight = 1;
  std::vector<fs::path> files = {};
  std::vector<data::Example> examples = {};  // empty while streaming
};

bool is_in_vocabulary(int32_t id, int64_t vocabulary) { return (id >= 0 && id < vocabulary) || id == data::kIgnore; }

[[noreturn]] void fail_token(const std::string& dataset, const std::string& finding, int64_t vocabulary) {
  fail(ErrorCode::kInvalidInput, "{}: {}, the model's vocabulary is {}; tokenize it with the model's own tokenizer",
       dataset, finding, vocabulary);
}

// A stream is looked at as it passes.
class CheckedLoader final : public data::Loader {
 public:
  CheckedLoader(std::unique_ptr<data::Loader> inner, std::string dataset, int64_t vocabulary)
      : inner_(std::move(inner)), dataset_(std::move(dataset)), vocabulary_(vocabulary) {}
  bool next(data::PackedSequence& out) override {
    if (!inner_->next(out)) return false;
    for (const auto* list : {&out.ids, &out.labels})
      for (const int32_t id : *list)
        if (!is_in_vocabulary(id, vocabulary_))
          fail_token(dataset_, fmt::format("a row of ready tokens has token {}", id), vocabulary_);
    return true;
  }
  int64_t epoch() const override { return inner_->epoch(); }
  double progress() const override { return inner_->progress(); }
  std::optional<int64_t> sequences_per_epoch() const override { return inner_->sequences_per_epoch(); }
  std::string state() const override { return inner_->state(); }
  void restore(const std::string& state, bool force) override { inner_->restore(state, force); }

 private:
  std::unique_ptr<data::Loader> inner_;
  std::string dataset_;
  int64_t vocabulary_;
};

int64_t bytes_of(const std::vector<Part>& parts) {
  int64_t bytes = 0;
  for (const Part& p : parts)
    for (const fs::path& f : p.files) bytes += static_cast<int64_t>(fs::file_size(f));
  return bytes;
}

bool is_streamed(const TrainOptions& o, const std::vector<Part>& parts, const JobContext& job) {
  if (o.streaming != Streaming::kAuto) return o.streaming == Streaming::kOn;
  const int64_t bytes = bytes_of(parts);
  if (bytes <= kStreamAbove || o.max_samples) return false;
  const double gb = static_cast<double>(bytes) / 1e9;
  if (!o.max_steps) {
    job.log(LogLevel::kWarn,
            "{:.1f} GB of data are read into memory to know how many steps they make; with --max-steps they are "
            "streamed in constant memory",
            gb);
    return false;
  }
  job.log(LogLevel::kInfo, "{:.1f} GB of data are streamed, {} rows at a time (--streaming off reads them whole)", gb,
          o.shuffle_buffer);
  return true;
}

// reads every part whole; the lengths of all examples
std::vector<int64_t> read_parts(std::vector<Part>& parts, const TrainOptions& o, const JobContext& job,
                                const data::ExampleBuilder& builder, int64_t vocabulary, ThreadPool* pool) {
  std::vector<int64_t> lengths;
  for (Part& p : parts) {
    const auto source = data::open_files(p.files);
    const int64_t before = builder.counts().dropped_nothing_learned.load();
    p.examples = data::read_examples(*source, column_flags(o), builder, pool, o.max_samples.value_or(0));
    if (p.examples.empty())
      fail(ErrorCode::kInvalidInput,
           "{}: no sample has anything to learn ({} read); check the format with `pmetal dataset validate` and "
           "--train-on",
           p.name, builder.counts().dropped_nothing_learned.load() - before);
    check_tokens(p.examples, p.name, vocabulary);
    for (const data::Example& e : p.examples) lengths.push_back(e.length());
  }
  const data::ExampleCounts& counts = builder.counts();
  if (counts.truncated > 0)
    job.log(LogLevel::kWarn,
            "{} of {} samples were longer than {} tokens and were cut; raise --max-seq-len to keep them whole",
            counts.truncated.load(), counts.built.load(), builder.options().max_length);
  if (counts.dropped_nothing_learned > 0)
    job.log(LogLevel::kWarn, "{} samples had nothing to learn and were left out",
            counts.dropped_nothing_learned.load());
  return lengths;
}

// the lengths of the first rows of every part
std::vector<int64_t> sample_lengths(const std::vector<Part>& parts, const TrainOptions& o,
                                    const data::ExampleBuilder& builder, ThreadPool* pool) {
  std::vector<int64_t> lengths;
  const data::ExampleBuilder sampler = builder.with(builder.options());
  for (const Part& p : parts) {
    const auto source = data::open_files(p.files);
    for (const data::Example& e : data::read_examples(*source, column_flags(o), sampler, pool, kSampleRows))
      lengths.push_back(e.length());
  }
  return lengths;
}

}  // namespace

data::ColumnFlags column_flags(const TrainOptions& o) {
  return {o.text_column.value_or(""), o.text_columns, o.column_separator, o.prompt_column.value_or(""),
          o.response_column.value_or("")};
}

void check_tokens(const std::vector<data::Example>& examples, const std::string& dataset, int64_t vocabulary) {
  for (size_t i = 0; i < examples.size(); ++i)
    for (size_t t = 0; t < examples[i].ids.size(); ++t)
      for (const int32_t id : {examples[i].ids[t], examples[i].labels[t]})
        if (!is_in_vocabulary(id, vocabulary))
          fail_token(dataset, fmt::format("sample {} has token {} at position {}", i + 1, id, t), vocabulary);
}

TrainingData open_training_data(const TrainOptions& o, const JobContext& job,
                                const std::shared_ptr<data::ExampleBuilder>& builder, int64_t vocabulary,
                                int64_t max_seq_len, ThreadPool* pool) {
  std::vector<Part> parts = {{o.dataset, o.dataset_weight}};
  for (const auto& [name, weight] : o.mix) parts.push_back({name, weight});
  for (Part& p : parts) {
    const fs::path path = local_dataset(job, p.name);
    if (o.split != "train" && fs::is_regular_file(path))
      fail(ErrorCode::kUsage, "{}: is a file, which has no split \"{}\"; name its folder, or leave --split out",
           path.string(), o.split);
    p.files = data::resolve_files(path, o.split);
  }

  TrainingData d;
  d.is_streamed = is_streamed(o, parts, job);
  const bool pack = !o.no_sequence_packing;
  std::vector<int64_t> lengths;
  if (!d.is_streamed)
    lengths = read_parts(parts, o, job, *builder, vocabulary, pool);
  else if (pack && !o.pack_max_seq_len)
    lengths = sample_lengths(parts, o, *builder, pool);
  d.sequence_length = !pack                ? max_seq_len
                      : o.pack_max_seq_len ? std::min(*o.pack_max_seq_len, max_seq_len)
                      : lengths.empty()    ? max_seq_len
                                           : data::packing_length(lengths, max_seq_len);
  if (!d.is_streamed) {
    d.n_examples = static_cast<int64_t>(lengths.size());
    for (const int64_t n : lengths) d.n_tokens += n;
  }

  const bool is_mixed = parts.size() > 1;
  const data::LoaderOptions options{.seed = o.seed,
                                    .shuffle = !o.no_shuffle,
                                    .pack = pack,
                                    .max_length = d.sequence_length,
                                    .epochs = is_mixed ? 0 : o.epochs};
  std::vector<data::MixturePart> mixture;
  for (Part& p : parts) {
    std::unique_ptr<data::Loader> loader;
    if (d.is_streamed)
      loader = std::make_unique<CheckedLoader>(
          data::make_stream_loader(
              {.files = p.files, .flags = column_flags(o), .builder = builder, .window_rows = o.shuffle_buffer},
              options, pool),
          p.name, vocabulary);
    else
      loader = data::make_loader(std::move(p.examples), data::fingerprint(p.files), options);
    mixture.push_back({std::move(loader), p.weight});
  }
  d.loader =
      is_mixed ? data::make_mixture(std::move(mixture), d.is_streamed ? 0 : o.epochs) : std::move(mixture[0].loader);
  return d;
}

}  // namespace pmetal::jobs
