#include "data/shards.h"

#include <glob.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace pmetal::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kIndexName = "index.json";

fs::path shard_path(const fs::path& folder, size_t number) { return folder / fmt::format("shard_{:05}.bin", number); }

ShardIndex parse_index(const std::string& text, const fs::path& path) {
  try {
    const Json j = Json::parse(text);
    ShardIndex index;
    index.vocab_size = j.at("vocab_size");
    index.tokenizer_hash = j.at("tokenizer_hash");
    index.data = j.at("data");
    if (!j.at("eos_id").is_null()) index.eos_id = j.at("eos_id").get<int32_t>();
    index.documents = j.at("documents");
    index.tokens = j.at("tokens");
    index.text_bytes = j.at("text_bytes");
    index.skipped = j.at("skipped");
    index.documents_per_shard = j.at("documents_per_shard");
    index.is_complete = j.at("complete");
    for (const auto& s : j.at("shards"))
      index.shards.push_back({s.at("file"), s.at("documents"), s.at("tokens"), s.at("rows_end")});
    return index;
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorCode::kInvalidInput, "{}: not an index of token shards: {}", path.string(), e.what());
  }
}

// One document of the input, or nothing for a malformed row.
struct Encoded {
  std::vector<int32_t> ids;
  int64_t text_bytes = 0;
  bool is_malformed = false;
};

Encoded encode_row(RecordParser& parser, const Row& row, const Encoder& encoder) {
  Encoded out;
  Record record;
  try {
    record = parser.parse(row);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kInvalidInput) throw;
    out.is_malformed = true;
    return out;
  }
  if (record.format != RecordFormat::kText)
    fail(ErrorCode::kInvalidInput, "{}: a {} record where text is needed; name the column with --text-column",
         record.where, name_of(record.format));
  out.text_bytes = static_cast<int64_t>(record.text.size());
  out.ids = encoder.encode_ids ? encoder.encode_ids(record.text, false) : encoder.encode(record.text, false).ids;
  return out;
}

// Takes up where an earlier run stopped, when it was the same work.
ShardIndex begin_or_resume(const TokenizeOptions& options, const Encoder& encoder) {
  ShardIndex fresh;
  fresh.vocab_size = options.vocab_size;
  fresh.tokenizer_hash = options.tokenizer_hash;
  fresh.data = fingerprint(options.inputs);
  fresh.eos_id = encoder.eos_id;
  fresh.documents_per_shard = options.documents_per_shard;
  const auto found = read_shard_index(options.output);
  if (!found) return fresh;
  const auto same = [&](const ShardIndex& a) {
    return a.data == fresh.data && a.tokenizer_hash == fresh.tokenizer_hash && a.eos_id == fresh.eos_id &&
           a.documents_per_shard == fresh.documents_per_shard;
  };
  if (same(*found)) {
    for (const auto& s : found->shards)
      if (!fs::exists(options.output / s.file))
        fail(ErrorCode::kNotFound, "{}: the shard {} of its index is missing; use --overwrite to start anew",
             options.output.string(), s.file);
    return *found;
  }
  if (!options.overwrite)
    fail(ErrorCode::kInvalidInput,
         "{}: holds shards of other data, another tokenizer or another shard size; choose an empty folder or use "
         "--overwrite",
         options.output.string());
  for (const auto& s : found->shards) fs::remove(options.output / s.file);
  fs::remove(options.output / kIndexName);
  return fresh;
}

class ShardFile {
 public:
  explicit ShardFile(fs::path path) : path_(std::move(path)), map_(map_file(path_)) {}

  // Where each document's tokens begin in the stream with end tokens; the last entry is the length of the stream.
  std::vector<int64_t> stream_starts() const {
    std::vector<int64_t> starts{0};
    for (int64_t at = 0; at < map_.size_bytes();) {
      const int64_t length = length_at(at);
      starts.push_back(starts.back() + length + 1);
      at += 4 + 4 * length;
    }
    return starts;
  }
  // documents before stream position p take 4 bytes of length each and one end token that is not in the file
  const char* tokens_of(int64_t document, int64_t stream_start) const {
    return reinterpret_cast<const char*>(map_.data()) + 4 * (stream_start - document) + 4 * (document + 1);
  }
  int64_t offset_of(const char* p) const { return p - reinterpret_cast<const char*>(map_.data()); }
  const fs::path& path() const { return path_; }

 private:
  int64_t length_at(int64_t at) const {
    if (map_.size_bytes() - at < 4) damaged(at);
    uint32_t length;
    std::memcpy(&length, map_.data() + at, 4);
    if (int64_t{length} > (map_.size_bytes() - at - 4) / 4) damaged(at);
    return length;
  }
  [[noreturn]] void damaged(int64_t at) const {
    fail(ErrorCode::kInvalidInput,
         "{}: the document at byte {} reaches beyond the end of {} bytes; not a token shard, or cut short",
         path_.string(), at, map_.size_bytes());
  }
  fs::path path_;
  Buffer map_;
};

class ShardLoader final : public Loader {
 public:
  ShardLoader(const std::vector<fs::path>& shards, ShardLoaderOptions options) : options_(options), paths_(shards) {
    const auto& o = options_.loader;
    if (paths_.empty()) fail(ErrorCode::kNotFound, "no token shards are named");
    if (o.max_length < 2) fail(ErrorCode::kUsage, "the sequence length is {}; it must be at least 2", o.max_length);
    if (o.world < 1 || o.rank < 0 || o.rank >= o.world)
      fail(ErrorCode::kUsage, "rank {} of {} is not a rank", o.rank, o.world);
    for (const auto& path : paths_) read_sizes(path);
    if (!options_.eos_id)
      fail(ErrorCode::kUsage, "{}: no index.json says the end token; give --eos-token-id", paths_.front().string());
    if (*options_.eos_id < 0 || (options_.vocab_size > 0 && *options_.eos_id >= options_.vocab_size))
      fail(ErrorCode::kUsage, "the end token {} is not in the vocabulary of {}; give --eos-token-id", *options_.eos_id,
           options_.vocab_size);
    fingerprint_ = fingerprint(paths_);
    arrange();
    if (total_ == 0) fail(ErrorCode::kInvalidInput, "the token shards hold no document");
    if (tokens_ == 0)
      fail(ErrorCode::kInvalidInput, "{}: the documents of the token shards are all empty", paths_.front().string());
  }
  bool next(PackedSequence& out) override {
    const auto& o = options_.loader;
    if (o.epochs > 0 && epoch_ >= o.epochs) return false;
    if (next_ >= total_) {
      ++epoch_;
      next_ = 0;
      if (o.epochs > 0 && epoch_ >= o.epochs) return false;
      arrange();
    }
    const bool is_filler = next_ + o.rank >= total_;
    out = sequence(is_filler ? next_ : next_ + o.rank);
    if (is_filler) std::fill(out.labels.begin(), out.labels.end(), kIgnore);
    next_ += o.world;
    return true;
  }
  int64_t epoch() const override { return epoch_; }
  double progress() const override {
    return static_cast<double>(epoch_) + std::min(1.0, static_cast<double>(next_) / static_cast<double>(total_));
  }
  std::optional<int64_t> sequences_per_epoch() const override {
    return (total_ + options_.loader.world - 1) / options_.loader.world;
  }
  std::string state() const override {
    Json state = identity();
    state["epoch"] = epoch_;
    state["next"] = next_;
    return state.dump();
  }
  void restore(const std::string& text, bool force) override {
    const Json state = Json::parse(text, nullptr, false);
    if (!state.is_object() || !state.contains("epoch") || !state.contains("next"))
      fail(ErrorCode::kInvalidInput, "the state of the token shards in the checkpoint cannot be read");
    const Json expected = identity();
    for (const auto& [name, value] : expected.items())
      if (!force && (!state.contains(name) || state[name] != value))
        fail(ErrorCode::kInvalidInput,
             "cannot continue in the token shards: \"{}\" is {} in the checkpoint and {} now; use the same shards and "
             "options, or force the resume",
             name, state.contains(name) ? state[name].dump() : "absent", value.dump());
    epoch_ = state["epoch"];
    next_ = state["next"];
    if (epoch_ < 0 || next_ < 0)
      fail(ErrorCode::kInvalidInput, "the state of the token shards has a negative position");
    arrange();
  }

 private:
  Json identity() const {
    const auto& o = options_.loader;
    return Json{{"version", 1},
                {"shards", fingerprint_},
                {"seed", o.seed},
                {"shuffle", o.shuffle},
                {"max_length", o.max_length},
                {"eos_id", *options_.eos_id},
                {"across", options_.attend_across_documents},
                {"world", o.world}};
  }
  void read_sizes(const fs::path& path) {
    const auto index = read_shard_index(path.parent_path());
    const ShardIndex::Shard* entry = nullptr;
    if (index) {
      for (const auto& s : index->shards)
        if (s.file == path.filename()) entry = &s;
      if (!options_.eos_id) options_.eos_id = index->eos_id;
      if (options_.vocab_size == 0) options_.vocab_size = index->vocab_size;
    }
    require_regular_file(path);
    const auto size = static_cast<int64_t>(fs::file_size(path));
    if (entry && size != 4 * (entry->documents + entry->tokens))
      fail(ErrorCode::kInvalidInput,
           "{}: {} bytes where its index says {} documents with {} tokens; the shard is damaged", path.string(), size,
           entry->documents, entry->tokens);
    const std::vector<int64_t> starts = entry ? std::vector<int64_t>{} : ShardFile(path).stream_starts();
    lengths_.push_back(entry ? entry->documents + entry->tokens : starts.back());
    tokens_ += entry ? entry->tokens : starts.back() - (static_cast<int64_t>(starts.size()) - 1);
  }
  // the epoch's order of shards and where each one's sequences begin
  void arrange() {
    const auto n = static_cast<int64_t>(paths_.size());
    shard_order_ = shuffled_order(n, options_.loader.seed, static_cast<uint64_t>(epoch_), 0, options_.loader.shuffle);
    first_sequence_.assign(1, 0);
    for (int64_t s : shard_order_) first_sequence_.push_back(first_sequence_.back() + sequences_in(s));
    total_ = first_sequence_.back();
    open_shard_ = -1;
  }
  int64_t sequences_in(int64_t shard) const {
    const int64_t length = lengths_[static_cast<size_t>(shard)], l = options_.loader.max_length;
    return length / l + (length % l >= 2 ? 1 : 0);  // a single token predicts nothing
  }
  void open(int64_t shard) {
    if (open_shard_ == shard) return;
    file_ = std::make_unique<ShardFile>(paths_[static_cast<size_t>(shard)]);
    starts_ = file_->stream_starts();
    sequence_order_ = shuffled_order(sequences_in(shard), options_.loader.seed, static_cast<uint64_t>(epoch_),
                                     static_cast<uint64_t>(shard) + 1, options_.loader.shuffle);
    open_shard_ = shard;
  }
  PackedSequence sequence(int64_t number) {
    const auto slot =
        std::upper_bound(first_sequence_.begin(), first_sequence_.end(), number) - first_sequence_.begin() - 1;
    open(shard_order_[static_cast<size_t>(slot)]);
    const int64_t inside = sequence_order_[static_cast<size_t>(number - first_sequence_[static_cast<size_t>(slot)])];
    const int64_t begin = inside * options_.loader.max_length;
    const int64_t end = std::min(begin + options_.loader.max_length, starts_.back());
    PackedSequence out;
    Example piece;
    auto document = std::upper_bound(starts_.begin(), starts_.end(), begin) - starts_.begin() - 1;
    for (int64_t at = begin; at < end; ++document) {
      const int64_t first = starts_[static_cast<size_t>(document)], last = starts_[static_cast<size_t>(document) + 1];
      const int64_t stop = std::min(end, last);
      append_tokens(piece.ids, document, first, at - first, std::min(stop, last - 1) - first);
      if (stop == last) piece.ids.push_back(*options_.eos_id);
      at = stop;
      if (!options_.attend_across_documents || at == end) {
        piece.labels = piece.ids;
        out.append(piece);
        piece = {};
      }
    }
    return out;
  }
  // tokens [from, to) of a document, checked against the vocabulary
  void append_tokens(std::vector<int32_t>& ids, int64_t document, int64_t stream_start, int64_t from, int64_t to) {
    const char* tokens = file_->tokens_of(document, stream_start);
    for (int64_t i = from; i < to; ++i) {
      uint32_t id;
      std::memcpy(&id, tokens + 4 * i, 4);
      if (id > INT32_MAX || (options_.vocab_size > 0 && int64_t{id} >= options_.vocab_size))
        fail(ErrorCode::kInvalidInput,
             "{}: token {} at byte {} is not in the vocabulary of {}; was it made with another tokenizer?",
             file_->path().string(), id, file_->offset_of(tokens + 4 * i), options_.vocab_size);
      ids.push_back(static_cast<int32_t>(id));
    }
  }

  ShardLoaderOptions options_;
  std::vector<fs::path> paths_;
  std::vector<int64_t> lengths_;  // stream length of each shard
  int64_t tokens_ = 0;            // of all shards, without end tokens
  std::string fingerprint_;
  int64_t epoch_ = 0, next_ = 0, total_ = 0;
  std::vector<int64_t> shard_order_, first_sequence_;
  int64_t open_shard_ = -1;
  std::unique_ptr<ShardFile> file_;
  std::vector<int64_t> starts_, sequence_order_;
};

}  // namespace

std::string to_json(const ShardIndex& index) {
  Json j{{"format", "pmetal-shards"},
         {"version", 1},
         {"vocab_size", index.vocab_size},
         {"tokenizer_hash", index.tokenizer_hash},
         {"eos_id", index.eos_id ? Json(*index.eos_id) : Json(nullptr)},
         {"documents", index.documents},
         {"tokens", index.tokens},
         {"text_bytes", index.text_bytes},
         {"skipped", index.skipped},
         {"documents_per_shard", index.documents_per_shard},
         {"data", index.data},
         {"complete", index.is_complete},
         {"shards", Json::array()}};
  for (const auto& s : index.shards)
    j["shards"].push_back(
        {{"file", s.file}, {"documents", s.documents}, {"tokens", s.tokens}, {"rows_end", s.rows_end}});
  return j.dump(1) + "\n";
}

std::optional<ShardIndex> read_shard_index(const fs::path& folder) {
  const fs::path path = folder / kIndexName;
  if (!fs::exists(path)) return std::nullopt;
  return parse_index(read_text(path), path);
}

ShardIndex write_shards(const TokenizeOptions& options, const Encoder& encoder, ThreadPool& pool,
                        const ShardProgress& progress) {
  constexpr int64_t kBatchRows = 512;
  constexpr int64_t kGrain = 8;
  if (options.documents_per_shard < 1 || options.documents_per_shard > 1'000'000)
    fail(ErrorCode::kUsage, "documents per shard is {}; it must be in 1 to 1000000", options.documents_per_shard);
  std::error_code error;
  fs::create_directories(options.output, error);
  if (error)
    fail(ErrorCode::kIo, "{}: cannot create the folder: {}; choose another --output", options.output.string(),
         error.message());
  ShardIndex index = begin_or_resume(options, encoder);
  if (index.is_complete) return index;
  const auto source = open_files(options.inputs);
  int64_t rows_done = index.shards.empty() ? 0 : index.shards.back().rows_end;
  source->skip(rows_done);

  std::optional<AtomicFile> file;
  ShardIndex::Shard shard;
  ShardIndex pending = index;  // counts of the shard under way join `index` when it is complete
  bool is_stopped = false;
  const auto close = [&] {
    if (!file) return;
    file->commit();
    file.reset();
    shard.rows_end = rows_done;
    pending.shards.push_back(shard);
    index = pending;
    write_file_atomic(options.output / kIndexName, to_json(index));
    if (progress && !progress(index)) is_stopped = true;
  };
  const auto take = [&](const Encoded& document) {
    ++rows_done;
    if (document.is_malformed) {
      ++pending.skipped;
      return;
    }
    if (!file) {
      shard = {shard_path({}, pending.shards.size()).string(), 0, 0, 0};
      file.emplace(options.output / shard.file);
    }
    const auto n = static_cast<uint32_t>(document.ids.size());
    file->write(std::string_view(reinterpret_cast<const char*>(&n), 4));
    file->write(std::string_view(reinterpret_cast<const char*>(document.ids.data()), 4 * document.ids.size()));
    ++shard.documents;
    shard.tokens += n;
    ++pending.documents;
    pending.tokens += n;
    pending.text_bytes += document.text_bytes;
    if (shard.documents == options.documents_per_shard) close();
  };
  std::vector<Row> rows;
  std::vector<Encoded> encoded;
  for (bool more = true; more && !is_stopped;) {
    rows.clear();
    Row row;
    while (static_cast<int64_t>(rows.size()) < kBatchRows && (more = source->next(row))) rows.push_back(std::move(row));
    encoded.assign(rows.size(), {});
    pool.parallel_for(static_cast<int64_t>(rows.size()), kGrain, [&](int64_t begin, int64_t end) {
      RecordParser parser(options.columns);
      for (int64_t i = begin; i < end; ++i)
        encoded[static_cast<size_t>(i)] = encode_row(parser, rows[static_cast<size_t>(i)], encoder);
    });
    for (size_t i = 0; i < encoded.size() && !is_stopped; ++i) take(encoded[i]);
  }
  if (is_stopped) return index;
  close();
  if (is_stopped) return index;
  index = pending;
  if (index.documents == 0)
    fail(ErrorCode::kInvalidInput, "{}: no document among {} rows ({} malformed)", options.inputs.front().string(),
         rows_done, index.skipped);
  index.is_complete = true;
  write_file_atomic(options.output / kIndexName, to_json(index));
  return index;
}

std::vector<fs::path> resolve_shards(const std::string& list) {
  std::set<fs::path> found;
  const auto take_folder = [&](const fs::path& folder) {
    size_t n = 0;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("shard_") && name.ends_with(".bin")) {
        found.insert(entry.path());
        ++n;
      }
    }
    if (n == 0)
      fail(ErrorCode::kNotFound, "{}: no shard_*.bin in this folder; make some with pmetal tokenize", folder.string());
  };
  for (size_t at = 0; at <= list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    const std::string item = list.substr(at, comma - at);
    at = comma + 1;
    if (item.empty()) continue;
    if (fs::is_directory(item)) {
      take_folder(item);
    } else if (fs::exists(item)) {
      found.insert(item);
    } else {
      glob_t matches{};
      const int rc = ::glob(item.c_str(), 0, nullptr, &matches);
      std::vector<fs::path> paths(matches.gl_pathv, matches.gl_pathv + (rc == 0 ? matches.gl_pathc : 0));
      ::globfree(&matches);
      if (paths.empty()) fail(ErrorCode::kNotFound, "{}: no such file, folder or match", item);
      for (const auto& p : paths) {
        if (fs::is_directory(p))
          take_folder(p);
        else
          found.insert(p);
      }
    }
  }
  if (found.empty()) fail(ErrorCode::kUsage, "no token shards are named");
  return {found.begin(), found.end()};
}

std::unique_ptr<Loader> make_shard_loader(const std::vector<fs::path>& shards, ShardLoaderOptions options) {
  return std::make_unique<ShardLoader>(shards, options);
}

}  // namespace pmetal::data
