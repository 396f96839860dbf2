#include "hub/listing.h"

#include <algorithm>
#include <cctype>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"

namespace pmetal::hub {
namespace {

using Json = nlohmann::ordered_json;

std::string text_at(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

int64_t size_at(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (found == object.end() || !found->is_number_integer()) return -1;
  return found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX ? -1 : found->get<int64_t>();
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

bool ends_with_any(const std::string& name, std::initializer_list<const char*> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](const char* e) { return name.ends_with(e); });
}

bool is_safetensors(const RepoFile& f) { return f.name.ends_with(".safetensors"); }
bool is_gguf(const RepoFile& f) { return f.name.ends_with(".gguf"); }
// weights in a format that safetensors make superfluous
bool is_other_weights(const std::string& name) {
  return ends_with_any(name, {".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".onnx", ".onnx_data", ".h5",
                              ".msgpack", ".ot", ".tflite", ".gguf", ".mlmodel"});
}

bool is_tokenizer_file(const std::string& name) {
  if (name.find('/') != std::string::npos) return false;
  return name.starts_with("tokenizer") || name.starts_with("chat_template") || name.starts_with("vocab.") ||
         name.ends_with(".model") || name.ends_with(".tiktoken") || name == "merges.txt" || name == "config.json" ||
         name == "generation_config.json" || name == "special_tokens_map.json" || name == "added_tokens.json";
}

bool is_data_file(std::string name) {
  name = lower(name);
  for (const char* packed : {".gz", ".zst"})
    if (name.ends_with(packed)) name.resize(name.rfind('.'));
  return ends_with_any(name, {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt"});
}

// a repository of GGUF files holds one model many times: take the first of these that is there
std::set<std::string> preferred_gguf(const std::vector<RepoFile>& files) {
  constexpr const char* kPreferred[] = {"q4_k_m", "q5_k_m", "q4_k_s", "q5_k_s", "q6_k", "q3_k_m", "q8_0", "f16"};
  std::set<std::string> all, picked;
  for (const RepoFile& f : files)
    if (is_gguf(f) && lower(f.name).find("mmproj") == std::string::npos) all.insert(f.name);
  for (const char* kind : kPreferred) {
    for (const std::string& name : all)
      if (lower(name).find(kind) != std::string::npos) picked.insert(name);
    if (!picked.empty()) return picked;
  }
  return all;
}

}  // namespace

RepoListing list_repo(HttpClient& client, const Settings& settings, const RepoId& repo) {
  check_repo(repo);
  const std::string what = fmt::format("{} \"{}\"{}", repo.kind == RepoKind::kModel ? "model" : "dataset", repo.name,
                                       repo.revision == "main" ? "" : " at revision \"" + repo.revision + "\"");
  const std::string url =
      settings.endpoint + api_path(repo) + "/revision/" + escape_value(repo.revision) + "?blobs=true";
  const HttpResponse response = client.send_patiently({.url = url});
  if (response.status != 200) fail_status(response, what, settings);
  const Json answer = formats::parse_json(response.body, what);
  RepoListing listing;
  listing.commit = text_at(answer, "sha");
  if (!is_commit(listing.commit))
    fail(ErrorCode::kInvalidInput, "{}: the answer of {} names no commit (\"sha\": \"{}\"); is HF_ENDPOINT right?",
         what, settings.endpoint, listing.commit);
  if (is_commit(repo.revision) && lower(repo.revision) != lower(listing.commit))
    fail(ErrorCode::kInvalidInput, "{}: the hub answers with commit {}", what, listing.commit);
  if (!answer.contains("siblings") || !answer["siblings"].is_array())
    fail(ErrorCode::kInvalidInput, "{}: the answer of {} has no list of files (\"siblings\")", what, settings.endpoint);
  std::set<std::string> seen;
  for (const Json& entry : answer["siblings"]) {
    RepoFile file{text_at(entry, "rfilename"), size_at(entry, "size"), "", text_at(entry, "blobId")};
    if (!is_safe_path(file.name))
      fail(ErrorCode::kInvalidInput, "{}: the file name {} would lead out of the cache; nothing is downloaded", what,
           formats::dump_json(Json(file.name), -1));
    if (!seen.insert(file.name).second) continue;
    if (const auto lfs = entry.find("lfs"); lfs != entry.end() && lfs->is_object()) {
      file.sha256 = lower(text_at(*lfs, "sha256"));
      file.blob.clear();  // of the pointer, not of the contents
      if (size_at(*lfs, "size") >= 0) file.size = size_at(*lfs, "size");
    }
    listing.files.push_back(std::move(file));
  }
  return listing;
}

std::vector<RepoFile> select_files(const std::vector<RepoFile>& files, Purpose purpose) {
  const bool has_safetensors = std::any_of(files.begin(), files.end(), is_safetensors);
  const std::set<std::string> gguf = preferred_gguf(files);
  const auto is_wanted = [&](const RepoFile& f) {
    if (f.name == ".gitattributes" || f.name.ends_with("/.gitattributes")) return false;
    switch (purpose) {
      case Purpose::kTokenizer: return is_tokenizer_file(f.name);
      case Purpose::kDataset: return is_data_file(f.name);
      case Purpose::kModel: break;
    }
    if (has_safetensors) return !is_other_weights(f.name);
    return gguf.empty() ? true : is_gguf(f) ? gguf.contains(f.name) : !is_other_weights(f.name);
  };
  std::vector<RepoFile> wanted;
  std::copy_if(files.begin(), files.end(), std::back_inserter(wanted), is_wanted);
  return wanted;
}

bool is_complete(const fs::path& snapshot, Purpose purpose) {
  std::error_code ignored;
  const auto has = [&](const fs::path& name) { return fs::is_regular_file(snapshot / name, ignored); };
  if (purpose != Purpose::kModel) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(snapshot, ignored)) {
      const std::string name = entry.path().filename().string();
      if (!entry.is_regular_file(ignored)) continue;
      if (purpose == Purpose::kDataset
              ? is_data_file(name)
              : name == "tokenizer.json" || name.ends_with(".model") || name == "vocab.json" || name == "vocab.txt")
        return true;
    }
    return false;
  }
  if (has("model.safetensors.index.json")) {
    const fs::path index = snapshot / "model.safetensors.index.json";
    const Json json = formats::read_json(index);
    const auto map = json.is_object() ? json.find("weight_map") : json.end();
    return has("config.json") && map != json.end() && map->is_object() &&
           std::all_of(map->begin(), map->end(), [&](const Json& shard) {
             return shard.is_string() && is_safe_path(shard.get<std::string>()) && has(shard.get<std::string>());
           });
  }
  if (has("adapter_config.json") && has("adapter_model.safetensors")) return true;
  for (const fs::directory_entry& entry : fs::directory_iterator(snapshot, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file(ignored)) continue;
    if (name.ends_with(".gguf")) return true;
    if (has("config.json") && name.ends_with(".safetensors") && name.find("-of-") == std::string::npos) return true;
  }
  return false;
}

}  // namespace pmetal::hub
