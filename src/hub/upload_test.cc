// Against a hub of the test's own on the loopback interface that keeps what it is given, and misbehaves. The hashes
// were computed with Python's hashlib, the base64 text with its base64 module.
#include "hub/upload.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/testing.h"
#include "hub/digest.h"
#include "hub/test_server.h"

namespace pmetal::hub {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Json = nlohmann::ordered_json;

const std::string kFirst = "0123456789abcdef0123456789abcdef01234567";
const std::string kSecond = "fedcba9876543210fedcba9876543210fedcba98";
const std::string kBigSha = "73b064d2fdad15ae6cafb199e386c06b10b1b603efb194b5a5ef9373f9f1e4ab";
const std::string kReadmeSha1 = "62575e412cb55cc398024f3105b2b07ca239047d";
constexpr int64_t kBigSize = 300000;

class UploadTest : public testing::Test {
 protected:
  UploadTest()
      : folder_(testing_support::scratch_dir("upload")), server_([this](const ServerRequest& r) {
          const std::scoped_lock lock(mutex_);
          if (intercept_) {
            if (auto reply = intercept_(r)) return *reply;
          }
          return honest(r);
        }) {
    settings_.endpoint = server_.url();
    settings_.token = "hf_secret";
    settings_.retry_delay_ms = 1;
    settings_.attempts = 3;
    for (int i = 0; i < kBigSize; ++i) big_ += static_cast<char>((i * 7 + i / 256 * 13 + i / 65536) % 256);
    write_file_atomic(folder_ / "model.safetensors", big_);
    write_file_atomic(folder_ / "README.md", "# a model\n");
    request_ = {.repo = {RepoKind::kModel, "org/mine", "main"}, .source = folder_, .message = "first"};
  }
  ~UploadTest() override { fs::remove_all(folder_); }

  // a hub that does as it is told
  ServerReply honest(const ServerRequest& r) {
    if (r.path == "/api/repos/create") return {.status = exists_ ? 409 : 200, .body = "{}"};
    if (r.method == "GET") {
      Json list = Json::array();
      for (const auto& [name, entry] : stored_) list.push_back(entry);
      return {.body = Json{{"sha", head_}, {"siblings", list}}.dump()};
    }
    if (r.path.find("/preupload/") != std::string::npos) return preupload(r);
    if (r.path.ends_with("/info/lfs/objects/batch")) return batch(r);
    if (r.path.starts_with("/store/")) {
      const std::string part = r.path.substr(r.path.rfind('/') + 1);
      parts_[part] = r.body;
      return {.headers = {"ETag: \"etag-" + part + "\""}};
    }
    if (r.path == "/join") {
      const Json wanted = Json::parse(r.body);
      for (size_t i = 0; i < wanted["parts"].size(); ++i)
        EXPECT_EQ(wanted["parts"][i].dump(),
                  fmt::format("{{\"partNumber\":{},\"etag\":\"\\\"etag-{}\\\"\"}}", i + 1, i + 1));
      return {};
    }
    if (r.path == "/verify") {
      EXPECT_EQ(Json::parse(r.body), (Json{{"oid", kBigSha}, {"size", kBigSize}}));
      return {};
    }
    if (r.path.find("/commit/") != std::string::npos) return commit(r);
    return {.status = 404};
  }

  static ServerReply preupload(const ServerRequest& r) {
    Json files = Json::array();
    const Json question = Json::parse(r.body);
    for (const Json& f : question["files"]) {
      const std::string path = f["path"];
      const bool is_large = path.ends_with(".safetensors");
      files.push_back(
          {{"path", path}, {"uploadMode", is_large ? "lfs" : "regular"}, {"shouldIgnore", path.ends_with(".log")}});
      if (path == "README.md") {
        EXPECT_EQ(f["sample"], "IyBhIG1vZGVsCg==");
      }
    }
    return {.body = Json{{"files", files}}.dump()};
  }

  ServerReply batch(const ServerRequest& r) {
    const Json question = Json::parse(r.body);
    EXPECT_EQ(question["operation"], "upload");
    Json objects = Json::array();
    for (const Json& o : question["objects"]) {
      Json entry{{"oid", o["oid"]}, {"size", o["size"]}};
      if (!has_object_) {
        const std::string store = (store_url_.empty() ? server_.url() : store_url_) + "/store/";
        Json upload{{"href", store + "1"}};
        if (part_bytes_ > 0) {
          upload["href"] = server_.url() + "/join";
          upload["header"]["chunk_size"] = std::to_string(part_bytes_);
          for (int64_t i = 0; i * part_bytes_ < kBigSize; ++i)
            upload["header"][fmt::format("{:05}", i + 1)] = store + std::to_string(i + 1);
        }
        entry["actions"] = {{"upload", upload}, {"verify", {{"href", server_.url() + "/verify"}}}};
      }
      objects.push_back(entry);
    }
    return {.body = Json{{"objects", objects}}.dump()};
  }

  ServerReply commit(const ServerRequest& r) {
    size_t begin = 0;
    for (size_t end; (end = r.body.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const Json line = Json::parse(r.body.substr(begin, end - begin));
      const Json& value = line["value"];
      if (line["key"] == "header") {
        if (value["parentCommit"] != head_) return {.status = 412};
        summary_ = value["summary"];
      } else if (line["key"] == "lfsFile") {
        stored_[value["path"]] = {{"rfilename", value["path"]},
                                  {"lfs", {{"sha256", value["oid"]}, {"size", value["size"]}}}};
      } else {
        EXPECT_EQ(value["encoding"], "base64");
        contents_[value["path"]] = value["content"];
        stored_[value["path"]] = {{"rfilename", value["path"]}, {"blobId", kReadmeSha1}, {"size", 10}};
      }
    }
    head_ = kSecond;
    return {.body = Json{{"commitOid", kSecond}}.dump()};
  }

  std::string whole() const {
    std::string bytes;
    for (size_t i = 1; i <= parts_.size(); ++i) bytes += parts_.at(std::to_string(i));
    return bytes;
  }

  Uploaded run() { return upload(settings_, request_, {}); }
  std::string error() {
    try {
      run();
    } catch (const Error& e) {
      return e.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return "";
  }

  const fs::path folder_;
  std::string big_;
  std::mutex mutex_;
  bool exists_ = false, has_object_ = false;
  int64_t part_bytes_ = 0;
  std::string head_ = kFirst, store_url_, summary_;
  std::map<std::string, Json> stored_;
  std::map<std::string, std::string> contents_, parts_;
  std::function<std::optional<ServerReply>(const ServerRequest&)> intercept_;
  Settings settings_;
  UploadRequest request_;
  TestServer server_;
};

TEST(Base64, equals_known_texts) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");  // RFC 4648 §10
  EXPECT_EQ(base64("foob"), "Zm9vYg==");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
}

TEST_F(UploadTest, a_folder_becomes_one_commit) {
  fs::create_directories(folder_ / ".git");
  fs::create_directories(folder_ / "checkpoints" / "step_1");
  write_file_atomic(folder_ / ".git" / "x", "x");
  write_file_atomic(folder_ / "checkpoints" / "step_1" / "x", "x");
  write_file_atomic(folder_ / "train.log", "x");
  const Uploaded u = run();
  EXPECT_EQ(u.commit, kSecond);
  EXPECT_THAT(u.sent, ElementsAre("README.md", "model.safetensors"));
  EXPECT_THAT(u.left_out, ElementsAre("train.log"));
  EXPECT_EQ(u.bytes_sent, kBigSize);
  EXPECT_EQ(summary_, "first");
  EXPECT_EQ(contents_["README.md"], "IyBhIG1vZGVsCg==");
  EXPECT_EQ(stored_["model.safetensors"]["lfs"]["sha256"], kBigSha);
  EXPECT_TRUE(whole() == big_);
  EXPECT_EQ(server_.count("POST", "/verify"), 1u);
  EXPECT_EQ(server_.count("POST", "/api/models/org/mine/commit/main"), 1u);
}

TEST_F(UploadTest, a_data_set_has_addresses_of_its_own_and_a_folder_in_it) {
  request_.repo.kind = RepoKind::kDataset;
  request_.source = folder_ / "README.md";
  request_.folder = "docs/";
  run();
  EXPECT_EQ(server_.count("POST", "/api/datasets/org/mine/commit/main"), 1u);
  EXPECT_TRUE(contents_.contains("docs/README.md"));
}

TEST_F(UploadTest, parts_are_put_and_joined) {
  part_bytes_ = 128 << 10;
  run();
  EXPECT_EQ(parts_.size(), 3u);
  EXPECT_TRUE(whole() == big_);
  EXPECT_EQ(server_.count("POST", "/join"), 1u);
}

TEST_F(UploadTest, what_is_there_is_not_sent_again) {
  run();
  const size_t before = server_.requests().size();
  exists_ = true;
  const Uploaded again = run();
  EXPECT_TRUE(again.sent.empty());
  EXPECT_THAT(again.unchanged, ElementsAre("README.md", "model.safetensors"));
  EXPECT_EQ(again.commit, kSecond);
  EXPECT_EQ(server_.requests().size() - before, 2u);  // create, list
  stored_.erase("model.safetensors");
  has_object_ = true;  // another repository's file, as the hub keeps each content once
  parts_.clear();
  EXPECT_EQ(run().bytes_sent, 0);
  EXPECT_TRUE(parts_.empty());
  EXPECT_TRUE(stored_.contains("model.safetensors"));
}

TEST_F(UploadTest, a_plan_changes_nothing) {
  request_.only_plan = true;
  EXPECT_THAT(run().sent, ElementsAre("README.md", "model.safetensors"));
  EXPECT_EQ(server_.count("POST", "/create") + server_.count("POST", "/batch") + server_.count("POST", "/commit/"), 0u);
  intercept_ = [](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.method == "GET") return ServerReply{.status = 404};
    return std::nullopt;
  };
  EXPECT_THAT(run().sent, ElementsAre("README.md", "model.safetensors"));
}

TEST_F(UploadTest, a_token_stays_with_the_endpoint) {
  TestServer store([](const ServerRequest& r) {
    return ServerReply{.headers = {"ETag: \"etag-" + r.path.substr(r.path.rfind('/') + 1) + "\""}};
  });
  store_url_ = store.url();
  part_bytes_ = 200000;
  run();
  ASSERT_EQ(store.requests().size(), 2u);
  EXPECT_EQ(store.requests()[0].body.size() + store.requests()[1].body.size(), static_cast<size_t>(kBigSize));
  for (const ServerRequest& r : store.requests())
    for (const auto& [name, value] : r.headers) EXPECT_EQ(value.find("hf_secret"), std::string::npos) << name;
  for (const ServerRequest& r : server_.requests()) EXPECT_EQ(r.header("authorization"), "Bearer hf_secret") << r.path;
}

TEST_F(UploadTest, nothing_is_posted_to_another_server) {
  TestServer elsewhere([](const ServerRequest&) { return ServerReply{.body = "{}"}; });
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.path.find("/commit/") == std::string::npos) return std::nullopt;
    return ServerReply{.status = 307, .headers = {"Location: " + elsewhere.url() + "/commit"}};
  };
  EXPECT_THAT(error(), HasSubstr("nothing is posted to another server"));
  EXPECT_TRUE(elsewhere.requests().empty());
}

TEST_F(UploadTest, a_renamed_repository_is_followed) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.path != "/api/models/org/mine/commit/main") return std::nullopt;
    return ServerReply{.status = 307, .headers = {"Location: /api/models/org/new-name/commit/main"}};
  };
  EXPECT_EQ(run().commit, kSecond);
}

TEST_F(UploadTest, cuts_and_busy_answers_are_followed_by_another_attempt) {
  std::map<std::string, int> seen;
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    const int n = seen[r.path]++;
    if (n == 0) return ServerReply{.status = 503};
    if (n == 1) return ServerReply{.body = "{}", .cut_after = 1};
    return std::nullopt;
  };
  EXPECT_EQ(run().bytes_sent, kBigSize);
  EXPECT_TRUE(whole() == big_);
}

TEST_F(UploadTest, a_commit_whose_answer_is_lost_is_not_made_twice) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.path.find("/commit/") == std::string::npos) return std::nullopt;
    ServerReply reply = commit(r);
    reply.cut_after = 3;
    return reply;
  };
  EXPECT_EQ(run().commit, kSecond);
  EXPECT_EQ(server_.count("POST", "/commit/"), 1u);
}

TEST_F(UploadTest, a_branch_that_someone_else_moved_is_an_error) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.path.find("/commit/") != std::string::npos) head_ = kSecond;
    return std::nullopt;
  };
  EXPECT_THAT(error(), HasSubstr("someone else changed main meanwhile"));
}

TEST_F(UploadTest, a_file_that_changes_meanwhile_is_an_error) {
  intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
    if (r.path == "/verify") write_file_atomic(folder_ / "README.md", "# another model\n");
    return std::nullopt;
  };
  EXPECT_THAT(error(), HasSubstr("README.md: was changed while it was sent"));
  EXPECT_EQ(server_.count("POST", "/commit/"), 0u);
}

TEST_F(UploadTest, odd_answers_are_refused) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"/preupload/", R"({"files":[]})", "\"lfs\" or \"regular\" was expected"},
      {"/preupload/", "[]", "\"lfs\" or \"regular\" was expected"},
      {"/batch", R"({"objects":[]})", "leaves it out"},
      {"/batch", R"({"objects":[{"oid":"BIG","error":{"code":422,"message":"quota"}}]})", "quota"},
      {"/batch", R"({"objects":[{"oid":"BIG","actions":{"upload":{"href":"ftp://x/y"}}}]})", "not https"},
      {"/batch",
       R"({"objects":[{"oid":"BIG","actions":{"upload":{"href":"http://x/y","header":{"chunk_size":"7"}}}}]})",
       "does not add up"},
      {"/batch", R"({"objects":[{"oid":"BIG","actions":{"upload":{"href":"http://x/y","header":{"a":"b\r\nc"}}}}]})",
       "control characters"},
      {"/commit/", "{}", "names no commit"}};
  for (const auto& [path, body, message] : cases) {
    std::string text = body;
    if (const size_t at = text.find("BIG"); at != std::string::npos) text.replace(at, 3, kBigSha);
    intercept_ = [&, p = path](const ServerRequest& r) -> std::optional<ServerReply> {
      if (r.path.find(p) == std::string::npos) return std::nullopt;
      return ServerReply{.body = text};
    };
    EXPECT_THAT(error(), HasSubstr(message)) << body;
  }
}

TEST_F(UploadTest, statuses_become_errors_that_say_what_to_do) {
  for (const char* path : {"/create", "/preupload/", "/batch", "/store/", "/verify", "/commit/"}) {
    intercept_ = [&](const ServerRequest& r) -> std::optional<ServerReply> {
      if (r.path.find(path) == std::string::npos) return std::nullopt;
      return ServerReply{.status = 401};
    };
    EXPECT_THAT(error(), HasSubstr("401")) << path;
  }
  intercept_ = nullptr;
  settings_.token.clear();
  EXPECT_THAT(error(), HasSubstr("set HF_TOKEN"));
  settings_.token = "hf_secret";
  settings_.offline = true;
  EXPECT_THAT(error(), HasSubstr("HF_HUB_OFFLINE"));
  settings_.offline = false;
  request_.folder = "../up";
  EXPECT_THAT(error(), HasSubstr("no folder of a repository"));
  request_.folder = "";
  request_.source = folder_ / "none";
  EXPECT_THAT(error(), HasSubstr("no such file or folder"));
}

}  // namespace
}  // namespace pmetal::hub
