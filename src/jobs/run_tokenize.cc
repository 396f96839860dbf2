// `pmetal tokenize`: shards, an index, and a report. A stop finishes the shard under way; the next run goes on.
#include <filesystem>
#include <ostream>

#include <nlohmann/json.hpp>

#include "base/threads.h"
#include "data/shards.h"
#include "data/text_encoder.h"
#include "jobs/context.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/tokenize.h"
#include "text/chat/chat.h"

namespace pmetal::jobs {
namespace {

namespace fs = std::filesystem;

std::optional<int32_t> end_token(const TokenizeJobOptions& o, const fs::path& path, const text::Tokenizer& tokenizer) {
  if (o.eos_token_id) return static_cast<int32_t>(*o.eos_token_id);
  const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
  if (!fs::exists(folder / "tokenizer_config.json")) return std::nullopt;
  const std::string token = text::chat::ChatTemplate::from_model_dir(folder).special_token("eos_token");
  return token.empty() ? std::nullopt : tokenizer.token_to_id(token);
}

}  // namespace

void run_tokenize(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<TokenizeJobOptions>();
  context.phase("loading_tokenizer", o.tokenizer);
  const fs::path path = local_tokenizer(context, o.tokenizer);
  const std::shared_ptr<const text::Tokenizer> tokenizer =
      fs::is_directory(path) ? text::Tokenizer::from_dir(path) : text::Tokenizer::from_file(path);
  const auto eos = end_token(o, path, *tokenizer);
  if (eos && (*eos < 0 || *eos >= tokenizer->vocab_size()))
    fail(ErrorCode::kUsage, "--eos-token-id {}: the tokenizer has {} entries", *eos, tokenizer->vocab_size());

  data::TokenizeOptions work;
  work.inputs = data::resolve_files(local_dataset(context, o.input));
  work.output = o.output_dir;
  work.columns.text_column = o.text_column;
  work.documents_per_shard = o.docs_per_shard;
  work.vocab_size = tokenizer->vocab_size();
  work.tokenizer_hash = fmt::format("{:016x}", tokenizer->hash());
  work.overwrite = o.overwrite;
  context.phase("tokenizing_dataset", o.input);
  ThreadPool pool(static_cast<int>(o.threads));
  const auto index = data::write_shards(work, data::make_encoder(tokenizer, eos), pool, [&](const data::ShardIndex& i) {
    context.progress("documents", i.documents, std::nullopt);
    return !context.is_cancelled();
  });
  context.stop_if_cancelled();
  context.artefact(o.output_dir, "token_shards");
  if (index.skipped > 0) context.log(LogLevel::kWarn, "{} malformed rows were skipped", index.skipped);
  const double bytes_per_token =
      index.tokens > 0 ? static_cast<double>(index.text_bytes) / static_cast<double>(index.tokens) : 0;
  if (context.json) {
    nlohmann::ordered_json out{
        {"output", o.output_dir},        {"shards", index.shards.size()},      {"documents", index.documents},
        {"tokens", index.tokens},        {"bytes_per_token", bytes_per_token}, {"skipped", index.skipped},
        {"vocab_size", index.vocab_size}};
    out["eos_token_id"] = index.eos_id ? nlohmann::ordered_json(*index.eos_id) : nlohmann::ordered_json(nullptr);
    context.data() << out.dump(2) << "\n";
    return;
  }
  context.data() << fmt::format("{} documents, {} tokens ({:.2f} bytes each) in {} shards: {}\n", index.documents,
                                index.tokens, bytes_per_token, index.shards.size(), o.output_dir);
}

}  // namespace pmetal::jobs
