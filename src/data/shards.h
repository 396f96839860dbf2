// Token shards for pretraining: shard_00000.bin, ... hold documents one after another as [u32 LE length][length u32 LE
// tokens], without special tokens; index.json beside them says vocabulary, tokenizer hash, end token, documents and
// tokens (surface 9.4). Writing is parallel, keeps the order of the input and resumes at the first shard that is not
// complete. Reading maps the files; the end token is put behind every document while reading.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/threads.h"
#include "data/loader.h"

namespace pmetal::data {

struct ShardIndex {
  struct Shard {
    std::string file;
    int64_t documents = 0, tokens = 0;
    int64_t rows_end = 0;  // input rows consumed when the shard was complete
  };
  int64_t vocab_size = 0;
  std::string tokenizer_hash, data;  // data: fingerprint of the input
  std::optional<int32_t> eos_id;
  int64_t documents = 0, tokens = 0, text_bytes = 0, skipped = 0;  // tokens without end tokens; skipped: malformed rows
  int64_t documents_per_shard = 0;
  bool is_complete = false;
  std::vector<Shard> shards;
};
std::string to_json(const ShardIndex& index);
// Nothing when the folder has no index.json; Error when it has one that cannot be read.
std::optional<ShardIndex> read_shard_index(const fs::path& folder);

struct TokenizeOptions {
  std::vector<fs::path> inputs;
  fs::path output;  // folder
  ColumnFlags columns;
  int64_t documents_per_shard = 10000;
  int64_t vocab_size = 0;
  std::string tokenizer_hash;
  bool overwrite = false;  // start anew where index.json belongs to other data or another tokenizer
};
// Called after each shard with what is there so far; false stops (the work done stays and is resumed next time).
using ShardProgress = std::function<bool(const ShardIndex&)>;

// Only text records (or those a text column is named for). Malformed rows are counted and skipped. Error(kInvalidInput)
// when `output` holds shards of something else and `overwrite` is off.
ShardIndex write_shards(const TokenizeOptions& options, const Encoder& encoder, ThreadPool& pool,
                        const ShardProgress& progress = nullptr);

// Files named by a comma-separated list of files, folders (their shard_*.bin) and globs; sorted, each once.
std::vector<fs::path> resolve_shards(const std::string& list);

struct ShardLoaderOptions {
  LoaderOptions loader;                  // max_length = tokens per sequence; pack is not used
  std::optional<int32_t> eos_id;         // instead of the index's; needed where there is no index.json
  int64_t vocab_size = 0;                // tokens at or above are an error naming file and offset; 0 = the index's
  bool attend_across_documents = false;  // one causal sequence over document borders, as in GPT
};
// The stream of each shard (documents, each followed by the end token) is cut into sequences of max_length, the last
// one shorter; shards and the sequences within each are permuted per epoch. Only one shard's borders are in memory.
std::unique_ptr<Loader> make_shard_loader(const std::vector<fs::path>& shards, ShardLoaderOptions options);

}  // namespace pmetal::data
