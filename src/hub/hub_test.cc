// Against a hub of the test's own on the loopback interface, which misbehaves. The hashes were computed with Python's
// hashlib over the same bytes.
#include <cstdlib>
#include <fstream>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing.h"
#include "hub/cache.h"
#include "hub/digest.h"
#include "hub/resolve.h"
#include "hub/search.h"
#include "hub/test_server.h"

namespace pmetal::hub {
namespace {

using testing::HasSubstr;

const std::string kCommit = "0123456789abcdef0123456789abcdef01234567";
const std::string kBigSha = "73b064d2fdad15ae6cafb199e386c06b10b1b603efb194b5a5ef9373f9f1e4ab";
const std::string kConfigSha1 = "230d5f4da0da586aad26ead694ea67cd15bd6df1";
const std::string kConfig = "{\"model_type\": \"llama\"}";
constexpr int64_t kBigSize = 300000;

std::string big_file() {
  std::string bytes;
  for (int i = 0; i < kBigSize; ++i) bytes += static_cast<char>((i * 7 + i / 256 * 13 + i / 65536) % 256);
  return bytes;
}

bool is_get_of_big(const ServerRequest& r) {
  return r.method == "GET" && r.path.find("/model.safetensors") != std::string::npos;
}

// the first and last byte that `Range: bytes=a-b` asks for
std::pair<int64_t, int64_t> range_of(const ServerRequest& r) {
  const std::string range = r.header("range");
  if (range.empty()) return {0, kBigSize - 1};
  return {std::atoll(range.c_str() + 6), std::atoll(range.c_str() + range.find('-') + 1)};
}

class HubTest : public testing::Test {
 protected:
  HubTest()
      : cache_(testing_support::scratch_dir("hub")), server_([this](const ServerRequest& r) { return answer(r); }) {
    ::setenv("no_proxy", "127.0.0.1", 1);
    settings_.endpoint = server_.url();
    settings_.cache = cache_;
    settings_.piece_bytes = 64 << 10;
    settings_.connections = 4;
    settings_.retry_delay_ms = 1;
    settings_.attempts = 3;
  }
  ~HubTest() override { fs::remove_all(cache_); }

  ServerReply answer(const ServerRequest& r) {
    if (intercept_) {
      if (auto reply = intercept_(r)) return *reply;
    }
    return honest(r);
  }

  ServerReply honest(const ServerRequest& r) const {
    if (r.path.starts_with("/api/")) return {.headers = {"Content-Type: application/json"}, .body = list_};
    if (r.path.find("/resolve/" + kCommit + "/model.safetensors") != std::string::npos) return big(r);
    if (r.path.ends_with("/resolve/" + kCommit + "/config.json"))
      return {.headers = {"ETag: \"" + kConfigSha1 + "\"", "X-Repo-Commit: " + kCommit}, .body = kConfig};
    return {.status = 404, .headers = {"X-Error-Code: EntryNotFound"}};
  }

  ServerReply big(const ServerRequest& r) const {
    ServerReply reply{.headers = {"ETag: \"" + kBigSha + "\"", "X-Repo-Commit: " + kCommit}, .body = big_};
    if (r.header("range").empty()) return reply;
    const auto [from, last] = range_of(r);
    reply.status = 206;
    reply.body = big_.substr(static_cast<size_t>(from), static_cast<size_t>(last - from + 1));
    reply.headers.push_back(fmt::format("Content-Range: bytes {}-{}/{}", from, last, kBigSize));
    return reply;
  }

  Snapshot download(const OnProgress& on_progress = {}) {
    return download_snapshot(settings_, {RepoKind::kModel, "org/tiny", "main"}, Purpose::kModel, on_progress);
  }

  void expect_good(const Snapshot& s) const {
    EXPECT_EQ(s.folder, cache_ / "models--org--tiny" / "snapshots" / kCommit);
    EXPECT_EQ(read_text(s.folder / "config.json"), kConfig);
    EXPECT_TRUE(read_text(s.folder / "model.safetensors") == big_);
    EXPECT_EQ(leftovers(), 0);
  }

  int leftovers() const {
    int n = 0;
    for (const auto& entry : fs::recursive_directory_iterator(cache_))
      n += entry.path().string().find(".pmetal.") != std::string::npos;
    return n;
  }

  template <class Call>
  Error error_of(Call&& call) {
    try {
      call();
    } catch (const Error& e) {
      return e;
    }
    ADD_FAILURE() << "nothing was thrown";
    return Error(ErrorCode::kIo, "");
  }

  const std::string big_ = big_file();
  const fs::path cache_;
  std::string list_ =
      "{\"sha\":\"" + kCommit + "\",\"siblings\":[{\"rfilename\":\"config.json\",\"size\":23,\"blobId\":\"" +
      kConfigSha1 +
      "\"},{\"rfilename\":\"model.safetensors\",\"size\":300000,\"blobId\":\"00\",\"lfs\":{\"sha256\":\"" + kBigSha +
      "\",\"size\":300000}},{\"rfilename\":\"pytorch_model.bin\"},{\"rfilename\":\"a.onnx\"}]}";
  std::function<std::optional<ServerReply>(const ServerRequest&)> intercept_;
  Settings settings_;
  TestServer server_;
};

TEST(Digest, equals_known_values) {
  const fs::path folder = testing_support::scratch_dir("digest");
  write_file_atomic(folder / "hello", "hello\n");
  write_file_atomic(folder / "empty", "");
  EXPECT_EQ(git_sha1_of_file(folder / "hello"), "ce013625030ba8dba906f756967f9e9ca394464a");  // git hash-object
  EXPECT_EQ(git_sha1_of_file(folder / "empty"), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  EXPECT_EQ(sha256_of_file(folder / "empty"), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  fs::remove_all(folder);
}

TEST(Names, hub_ids_and_paths) {
  for (const char* good : {"Qwen/Qwen3-0.6B", "a/b", "org/model.v1_x"}) EXPECT_TRUE(is_hub_id(good)) << good;
  for (const char* bad : {"", "name", "/a/b", "./a", "../a", "a/b/c", "a/", "/a", "a/..", "random:x/c.json",
                          "data/x.jsonl", "a/b c", "a/b?x", "a\\b/c"})
    EXPECT_FALSE(is_hub_id(bad)) << bad;
  for (const char* good : {"a", "a/b.json", "..a/b", "a b/c"}) EXPECT_TRUE(is_safe_path(good)) << good;
  for (const char* bad : {"", "/a", "a/../b", "..", ".", "a//b", "a/", "a\\b", "a\nb", "./a"})
    EXPECT_FALSE(is_safe_path(bad)) << bad;
}

TEST(Select, skips_other_formats_beside_safetensors_and_picks_one_gguf) {
  const auto names = [](const std::vector<RepoFile>& files, Purpose purpose) {
    std::set<std::string> out;
    for (const RepoFile& f : select_files(files, purpose)) out.insert(f.name);
    return out;
  };
  const std::vector<RepoFile> mixed = {{"config.json"},
                                       {"model.safetensors"},
                                       {"pytorch_model.bin"},
                                       {"onnx/model.onnx"},
                                       {"tf_model.h5"},
                                       {"flax_model.msgpack"},
                                       {"x.pt"},
                                       {"tokenizer.json"},
                                       {".gitattributes"}};
  EXPECT_EQ(names(mixed, Purpose::kModel),
            (std::set<std::string>{"config.json", "model.safetensors", "tokenizer.json"}));
  EXPECT_EQ(names(mixed, Purpose::kTokenizer), (std::set<std::string>{"config.json", "tokenizer.json"}));
  EXPECT_EQ(names({{"config.json"}, {"pytorch_model.bin"}}, Purpose::kModel),
            (std::set<std::string>{"config.json", "pytorch_model.bin"}));
  EXPECT_EQ(names({{"m.Q8_0.gguf"}, {"m.Q5_K_M.gguf"}, {"m.Q2_K.gguf"}, {"README.md"}}, Purpose::kModel),
            (std::set<std::string>{"m.Q5_K_M.gguf", "README.md"}));
}

TEST_F(HubTest, snapshot_has_the_layout_of_the_official_tools) {
  const Snapshot s = download();
  expect_good(s);
  const fs::path repo = cache_ / "models--org--tiny";
  EXPECT_EQ(read_text(repo / "refs" / "main"), kCommit);
  EXPECT_EQ(fs::read_symlink(s.folder / "config.json"), fs::path("../../blobs/" + kConfigSha1));
  EXPECT_EQ(fs::read_symlink(s.folder / "model.safetensors"), fs::path("../../blobs/" + kBigSha));
  EXPECT_EQ(fs::file_size(repo / "blobs" / kBigSha), kBigSize);
  EXPECT_EQ(s.files, 2);  // neither .bin nor .onnx
  EXPECT_EQ(s.bytes_fetched, kBigSize + 23);
  EXPECT_TRUE(s.unverified.empty());
  EXPECT_EQ(server_.count("GET", "model.safetensors"), 5u);  // pieces of 64 KiB
  EXPECT_EQ(download().bytes_fetched, 0);                    // the second time everything is there
}

TEST_F(HubTest, resolve_takes_path_then_cache_then_hub) {
  EXPECT_EQ(resolve(settings_, cache_.string(), Purpose::kModel, {}).path, cache_);
  EXPECT_EQ(resolve(settings_, "no-such-folder", Purpose::kModel, {}).path, "no-such-folder");
  EXPECT_EQ(server_.requests().size(), 0u);
  settings_.offline = true;
  const Error offline = error_of([&] { resolve(settings_, "org/tiny", Purpose::kModel, {}); });
  EXPECT_EQ(offline.code(), ErrorCode::kNotFound);
  EXPECT_THAT(offline.what(), HasSubstr("HF_HUB_OFFLINE"));
  EXPECT_EQ(server_.requests().size(), 0u);
  settings_.offline = false;
  const Resolved first = resolve(settings_, "org/tiny", Purpose::kModel, {});
  EXPECT_EQ(first.download.files, 2);
  const size_t n = server_.requests().size();
  settings_.offline = true;
  EXPECT_EQ(resolve(settings_, "org/tiny", Purpose::kModel, {}).path, first.path);
  EXPECT_EQ(resolve(settings_, "org/tiny", Purpose::kModel, {}, kCommit).path, first.path);
  EXPECT_EQ(server_.requests().size(), n);
  fs::remove(first.path / "model.safetensors");  // as after a stop of another tool
  EXPECT_THAT(error_of([&] { resolve(settings_, "org/tiny", Purpose::kModel, {}); }).what(), HasSubstr("only a part"));
}

TEST_F(HubTest, cut_transfers_go_on_where_they_stopped) {
  std::atomic<int> cuts{0};
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (!is_get_of_big(r) || cuts.fetch_add(1) >= 12) return std::nullopt;
    ServerReply reply = big(r);
    reply.cut_after = 9000;
    return reply;
  };
  const Snapshot s = download();
  expect_good(s);
  EXPECT_LE(s.bytes_fetched, kBigSize + 23);  // no byte twice
}

TEST_F(HubTest, a_later_run_fetches_only_what_is_missing) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (!is_get_of_big(r) || range_of(r).first < 65536 * 3) return std::nullopt;
    return ServerReply{.status = 503};
  };
  EXPECT_THAT(error_of([&] { download(); }).what(), HasSubstr("3 attempts"));
  EXPECT_FALSE(fs::exists(cache_ / "models--org--tiny" / "refs" / "main"));
  EXPECT_FALSE(fs::exists(cache_ / "models--org--tiny" / "blobs" / kBigSha));
  settings_.connections = 1;
  intercept_ = nullptr;
  const Snapshot s = download();
  expect_good(s);
  EXPECT_LE(s.bytes_fetched, kBigSize - 65536);
}

TEST_F(HubTest, nothing_of_another_etag_is_continued) {
  settings_.connections = 1;
  const std::string old_etag(64, 'a');
  const std::string good_list = list_;
  list_.replace(list_.find(kBigSha), 64, old_etag);
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.path.find("/model.safetensors") == std::string::npos) return std::nullopt;
    if (r.method == "GET" && range_of(r).first >= 65536) return ServerReply{.status = 500};
    ServerReply reply = big(r);
    reply.headers[0] = "ETag: \"" + old_etag + "\"";
    for (char& c : reply.body) c = 'x';
    return reply;
  };
  error_of([&] { download(); });
  EXPECT_TRUE(fs::exists(cache_ / "models--org--tiny" / "blobs" / (old_etag + ".pmetal.incomplete")));
  list_ = good_list;
  intercept_ = nullptr;
  const Snapshot s = download();
  EXPECT_EQ(s.bytes_fetched, kBigSize);  // config.json was there already
  EXPECT_TRUE(read_text(s.folder / "model.safetensors") == big_);
}

TEST_F(HubTest, a_file_that_changes_under_way_is_an_error) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (!is_get_of_big(r) || range_of(r).first == 0) return std::nullopt;
    ServerReply reply = big(r);
    reply.headers[0] = "ETag: \"" + std::string(64, 'b') + "\"";
    return reply;
  };
  EXPECT_THAT(error_of([&] { download(); }).what(), HasSubstr("was changed on the server"));
}

TEST_F(HubTest, ignored_and_wrong_ranges_end_in_one_whole_transfer) {
  for (const bool ignored : {true, false}) {
    fs::remove_all(cache_ / "models--org--tiny");
    intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
      if (!is_get_of_big(r) || r.header("range").empty()) return std::nullopt;
      ServerReply reply = big(r);
      if (ignored) {
        reply.status = 200;
        reply.headers.pop_back();
        reply.body = big_;
      } else {  // another range than the one asked for
        reply.body = big_.substr(100, reply.body.size());
        reply.headers.back() = fmt::format("Content-Range: bytes 100-{}/{}", 99 + reply.body.size(), kBigSize);
      }
      return reply;
    };
    expect_good(download());
  }
}

TEST_F(HubTest, a_false_piece_is_found_by_the_hash) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (!is_get_of_big(r)) return std::nullopt;
    ServerReply reply = big(r);
    reply.body[5] ^= 1;
    return reply;
  };
  const Error e = error_of([&] { download(); });
  EXPECT_THAT(e.what(), HasSubstr(kBigSha));
  EXPECT_THAT(e.what(), HasSubstr("thrown away"));
  EXPECT_FALSE(fs::exists(cache_ / "models--org--tiny" / "blobs" / kBigSha));
  intercept_ = nullptr;
  expect_good(download());  // nothing false was kept
}

TEST_F(HubTest, a_false_small_file_is_found_by_its_git_hash) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (!r.path.ends_with("config.json")) return std::nullopt;
    ServerReply reply = honest(r);
    reply.body[2] = 'M';
    return reply;
  };
  EXPECT_THAT(error_of([&] { download(); }).what(), HasSubstr("Git hash"));
}

TEST_F(HubTest, what_an_earlier_run_left_damaged_is_fetched_again) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (!is_get_of_big(r) || range_of(r).first == 0) return std::nullopt;
    return ServerReply{.status = 500};
  };
  settings_.connections = 1;
  error_of([&] { download(); });
  const fs::path partial = cache_ / "models--org--tiny" / "blobs" / (kBigSha + ".pmetal.incomplete");
  ASSERT_TRUE(fs::exists(partial));
  std::fstream(partial, std::ios::in | std::ios::out | std::ios::binary) << "damage";
  intercept_ = nullptr;
  expect_good(download());
}

TEST_F(HubTest, a_token_never_reaches_another_host) {
  TestServer elsewhere([this](const ServerRequest& r) {
    ServerReply reply = big(r);
    reply.headers[0] = "ETag: \"other\"";
    return reply;
  });
  settings_.token = "hf_secret";
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.path.find("/model.safetensors") == std::string::npos) return std::nullopt;
    return ServerReply{
        .status = 302,
        .headers = {"Location: " + elsewhere.url() + "/model.safetensors?signature=1",
                    "X-Linked-ETag: \"" + kBigSha + "\"", "X-Linked-Size: 300000", "X-Repo-Commit: " + kCommit}};
  };
  expect_good(download());
  ASSERT_EQ(elsewhere.requests().size(), 5u);
  for (const ServerRequest& r : elsewhere.requests()) {
    EXPECT_EQ(r.header("authorization"), "");
    for (const auto& [name, value] : r.headers) EXPECT_EQ(value.find("hf_secret"), std::string::npos) << name;
  }
  for (const ServerRequest& r : server_.requests()) EXPECT_EQ(r.header("authorization"), "Bearer hf_secret");
}

TEST_F(HubTest, a_slow_server_is_waited_for) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (!is_get_of_big(r)) return std::nullopt;
    ServerReply reply = big(r);
    reply.chunk_bytes = 4096;
    return reply;
  };
  expect_good(download());
}

TEST_F(HubTest, statuses_become_errors_that_say_what_to_do) {
  const std::tuple<int, ErrorCode, const char*, size_t> cases[] = {{401, ErrorCode::kNotFound, "HF_TOKEN", 1},
                                                                   {403, ErrorCode::kNotFound, "HF_TOKEN", 1},
                                                                   {404, ErrorCode::kNotFound, "spelling", 1},
                                                                   {429, ErrorCode::kIo, "too many requests", 3},
                                                                   {500, ErrorCode::kIo, "try again later", 3}};
  for (const auto& [status, code, text, requests] : cases) {
    const size_t before = server_.requests().size();
    intercept_ = [s = status](const ServerRequest&) { return ServerReply{.status = s}; };
    const Error e = error_of([&] { download(); });
    EXPECT_EQ(e.code(), code) << status;
    EXPECT_THAT(e.what(), HasSubstr(text));
    EXPECT_THAT(e.what(), HasSubstr("org/tiny"));
    EXPECT_EQ(server_.requests().size() - before, requests) << status;
  }
}

TEST_F(HubTest, a_name_that_is_nowhere_says_so_of_both_places) {
  intercept_ = [](const ServerRequest&) { return ServerReply{.status = 404}; };
  const Error e = error_of([&] { resolve(settings_, "runs/adapter", Purpose::kModel, {}); });
  EXPECT_EQ(e.code(), ErrorCode::kNotFound);
  EXPECT_THAT(e.what(), HasSubstr("runs/adapter: no such file or folder here"));
}

TEST_F(HubTest, a_busy_server_is_asked_again) {
  std::atomic<int> n{0};
  intercept_ = [&](const ServerRequest&) -> std::optional<ServerReply> {
    const int i = n.fetch_add(1);
    if (i < 2) return ServerReply{.status = i == 0 ? 503 : 429};
    return std::nullopt;
  };
  expect_good(download());
}

TEST_F(HubTest, absurd_lengths_are_refused_before_anything_is_written) {
  list_ = "{\"sha\":\"" + kCommit + "\",\"siblings\":[{\"rfilename\":\"model.safetensors\"}]}";
  for (const char* length : {"9223372036854775807", "4000000000000000000"}) {
    intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
      if (r.method != "HEAD") return std::nullopt;
      ServerReply reply = big(r);
      reply.content_length = length;
      return reply;
    };
    EXPECT_THAT(error_of([&] { download(); }).what(), HasSubstr("GB are free"));
  }
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.method != "HEAD") return std::nullopt;
    ServerReply reply = big(r);
    reply.headers.push_back("X-Linked-Size: -5");
    return reply;
  };
  EXPECT_THAT(error_of([&] { download(); }).what(), HasSubstr("\"-5\""));
  EXPECT_EQ(leftovers(), 0);
}

TEST_F(HubTest, names_that_lead_out_of_the_cache_are_refused) {
  for (const char* name : {"../evil", "/etc/evil", "a/../../evil", "a\\\\..\\\\evil", ""}) {
    list_ = "{\"sha\":\"" + kCommit + "\",\"siblings\":[{\"rfilename\":\"" + name + "\"}]}";
    const Error e = error_of([&] { download(); });
    EXPECT_EQ(e.code(), ErrorCode::kInvalidInput) << name;
    EXPECT_THAT(e.what(), HasSubstr("lead out of the cache"));
  }
  list_ = "{\"sha\":\"../../evil\",\"siblings\":[]}";
  EXPECT_EQ(error_of([&] { download(); }).code(), ErrorCode::kInvalidInput);
  list_ = "[]";
  EXPECT_EQ(error_of([&] { download(); }).code(), ErrorCode::kInvalidInput);
}

TEST_F(HubTest, endless_redirects_end) {
  intercept_ = [](const ServerRequest& r) { return ServerReply{.status = 307, .headers = {"Location: " + r.path}}; };
  EXPECT_THAT(error_of([&] { download(); }).what(), HasSubstr("redirects"));
}

TEST_F(HubTest, progress_may_stop_the_download_and_the_next_goes_on) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (!is_get_of_big(r)) return std::nullopt;
    ServerReply reply = big(r);
    reply.chunk_bytes = 512;
    return reply;
  };
  EXPECT_EQ(error_of([&] { download([](const Progress& p) { return p.bytes_done == 0; }); }).code(),
            ErrorCode::kCancelled);
  intercept_ = nullptr;
  Progress last;
  const Snapshot s = download([&](const Progress& p) {
    last = p;
    return true;
  });
  expect_good(s);
  EXPECT_LT(s.bytes_fetched, kBigSize + 23);
  EXPECT_EQ(last.bytes_done, kBigSize + 23);
  EXPECT_EQ(last.bytes, kBigSize + 23);
  EXPECT_EQ(last.files_done, 2);
}

TEST_F(HubTest, a_revision_is_asked_for_and_noted) {
  download_snapshot(settings_, {RepoKind::kModel, "org/tiny", "refs/pr/1"}, Purpose::kModel, {});
  EXPECT_EQ(server_.count("GET", "/api/models/org/tiny/revision/refs%2Fpr%2F1"), 1u);
  EXPECT_EQ(read_text(cache_ / "models--org--tiny" / "refs" / "refs" / "pr" / "1"), kCommit);
  EXPECT_EQ(error_of([&] {
              download_snapshot(settings_, {RepoKind::kModel, "org/tiny", "../x"}, Purpose::kModel, {});
            }).code(),
            ErrorCode::kUsage);
}

TEST_F(HubTest, search_reads_sizes_and_refuses_odd_answers) {
  list_ = R"([{"id":"a/one","downloads":5,"likes":2,"pipeline_tag":"text-generation","gated":false,
               "safetensors":{"parameters":{"BF16":8030261248},"total":8030261248}},
              {"id":"a/two-4B-4bit","gated":"manual","safetensors":{"total":600000000}},
              {"id":"../x"}, {"id":"a/three"}, {"id":"a/four"}])";
  const auto goes_on = [] { return true; };
  const auto found = search_models(settings_, "ll ama&x", 3, goes_on);
  EXPECT_EQ(server_.count("GET", "/api/models?search=ll%20ama%26x&limit=3&"), 1u);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].name, "a/one");
  EXPECT_EQ(found[0].downloads, 5);
  EXPECT_FALSE(found[0].is_gated);
  EXPECT_DOUBLE_EQ(found[0].size->params_b, 8.030261248);
  EXPECT_TRUE(found[1].is_gated);
  EXPECT_DOUBLE_EQ(found[1].size->params_b, 4);  // packed: the name counts
  EXPECT_EQ(found[2].name, "a/three");
  EXPECT_FALSE(found[2].size.has_value());
  list_ = "{}";
  EXPECT_EQ(error_of([&] { search_models(settings_, "x", 3, goes_on); }).code(), ErrorCode::kInvalidInput);
}

TEST(Settings, follow_the_environment) {
  const fs::path folder = testing_support::scratch_dir("hub-settings");
  const std::pair<const char*, std::string> variables[] = {
      {"HF_HOME", folder.string()},           {"HF_HUB_CACHE", ""},      {"HF_TOKEN", ""}, {"HF_TOKEN_PATH", ""},
      {"HF_ENDPOINT", "http://127.0.0.1:9/"}, {"HF_HUB_OFFLINE", "True"}};
  for (const auto& [name, value] : variables) ::setenv(name, value.c_str(), 1);
  write_file_atomic(folder / "token", "hf_file\n");
  Settings s = settings_from_environment();
  EXPECT_EQ(s.cache, folder / "hub");
  EXPECT_EQ(s.token, "hf_file");
  EXPECT_EQ(s.endpoint, "http://127.0.0.1:9");
  EXPECT_TRUE(s.offline);
  ::setenv("HF_HUB_CACHE", "/elsewhere", 1);
  ::setenv("HF_TOKEN", "hf_env", 1);
  s = settings_from_environment();
  EXPECT_EQ(s.cache, "/elsewhere");
  EXPECT_EQ(s.token, "hf_env");
  ::setenv("HF_TOKEN", "a\nX-Evil: 1", 1);
  EXPECT_THROW(settings_from_environment(), Error);
  for (const auto& [name, value] : variables) ::unsetenv(name);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace pmetal::hub
