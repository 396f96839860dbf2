// Loaders hand out sequences, packed or one document each, epoch after epoch in a seeded order, and can say exactly
// where they are: state() is a line of JSON, restore() continues with the very next sequence.
// Work is done in windows of rows: the whole set held as tokens (one window), or, for files of any size, `window_rows`
// rows at a time in constant memory: each window is read, permuted, tokenised, packed, permuted again. Orders are pure
// functions of (seed, epoch, window), so a position is a handful of numbers and never carries tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/threads.h"
#include "data/packing.h"
#include "data/source.h"

namespace pmetal::data {

struct LoaderOptions {
  uint64_t seed = 42;
  bool shuffle = true;
  bool pack = true;
  int64_t max_length = 2048;  // capacity of a packed sequence, limit of a single one
  LongDocuments long_documents = LongDocuments::kTruncate;
  int64_t epochs = 1;  // 0 = without end
  // Data-parallel ranks take sequence i with i = rank mod world. When an epoch does not divide, the ranks left over get
  // the round's first sequence with all labels ignored, so that every rank takes the same number of steps.
  int rank = 0, world = 1;
};

class Loader {
 public:
  virtual ~Loader() = default;
  virtual bool next(PackedSequence& out) = 0;  // false after the last epoch
  virtual int64_t epoch() const = 0;           // epochs finished
  virtual double progress() const = 0;         // epochs as a fraction; whole epochs alone while streaming
  // sequences one rank sees per epoch; nothing while streaming
  virtual std::optional<int64_t> sequences_per_epoch() const = 0;
  virtual std::string state() const = 0;
  // Error(kInvalidInput) naming the field when the state was saved over other data, seed or options; `force` takes the
  // position all the same.
  virtual void restore(const std::string& state, bool force = false) = 0;
};

// Reads and tokenises all rows of a source in order (on `pool` when given). `max_samples` 0 = all.
std::vector<Example> read_examples(Source& source, const ColumnFlags& flags, const ExampleBuilder& builder,
                                   ThreadPool* pool = nullptr, int64_t max_samples = 0);

// Over examples held in memory. `fingerprint` names the data (data::fingerprint).
std::unique_ptr<Loader> make_loader(std::vector<Example> examples, std::string fingerprint, LoaderOptions options);

struct StreamInput {
  std::vector<fs::path> files;
  ColumnFlags flags;
  std::shared_ptr<const ExampleBuilder> builder;
  int64_t window_rows = 8192;  // the shuffle buffer
};
std::unique_ptr<Loader> make_stream_loader(StreamInput input, LoaderOptions options, ThreadPool* pool = nullptr);

// Several loaders (made with epochs = 0) mixed so that after n sequences each has given n * weight within one:
// the part furthest behind its share comes next. Weights are relative. An epoch is as many sequences as the parts
// have together; epochs > 0 needs parts that know their size.
struct MixturePart {
  std::unique_ptr<Loader> loader;
  double weight = 1;
};
std::unique_ptr<Loader> make_mixture(std::vector<MixturePart> parts, int64_t epochs);

// n indices in the order of (seed, epoch, window); the identity when not shuffled
std::vector<int64_t> shuffled_order(int64_t n, uint64_t seed, uint64_t epoch, uint64_t window, bool shuffle);

}  // namespace pmetal::data
