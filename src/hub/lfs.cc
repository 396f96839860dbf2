#include "hub/lfs.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <map>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"

namespace pmetal::hub {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxParts = 10000;  // what the stores behind such servers take

const std::vector<std::string> kLfsHeaders = {"Accept: application/vnd.git-lfs+json",
                                              "Content-Type: application/vnd.git-lfs+json"};

struct Part {
  std::string url;
  int64_t begin = 0, bytes = 0;
};

// where one object goes
struct Plan {
  LfsObject object;
  std::string repo;                  // for messages
  std::string url, verify_url;       // verify_url may be empty
  std::vector<std::string> headers;  // of the PUT
  std::vector<std::string> verify_headers;
  std::vector<Part> parts;  // empty: one PUT to `url`; else `url` takes their list
};

std::string text_at(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

const Json& member(const Json& object, const char* key) {
  static const Json none;
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found == object.end() ? none : *found;
}

struct File {
  explicit File(const std::string& path) : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd < 0) fail(ErrorCode::kIo, "{}: cannot be opened any more", path);
  }
  ~File() { ::close(fd); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const int fd;
};

std::string checked_target(const std::string& url, const std::string& what, const Settings& settings) {
  const bool is_plain = url.starts_with("http://") && settings.endpoint.starts_with("http://");
  if (!url.starts_with("https://") && !is_plain)
    fail(ErrorCode::kInvalidInput, "{}: the hub wants it sent to \"{}\", which is not https", what,
         url.substr(0, url.find('?')));
  return url;
}

// "header" of an action: lines for the request, except those that belong to the parts
std::vector<std::string> header_lines(const Json& headers, const std::string& what) {
  std::vector<std::string> lines;
  if (!headers.is_object()) return lines;
  for (const auto& [name, value] : headers.items()) {
    const bool is_number =
        !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
    if (is_number || name == "chunk_size") continue;
    const std::string line = name + ": " + (value.is_string() ? value.get<std::string>() : value.dump());
    if (std::any_of(line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
      fail(ErrorCode::kInvalidInput, "{}: the hub asks for a header with control characters", what);
    lines.push_back(line);
  }
  return lines;
}

std::vector<Part> parts_of(const Json& headers, int64_t size, const std::string& what, const Settings& settings) {
  std::vector<Part> parts;
  const Json& stated = member(headers, "chunk_size");
  if (stated.is_null()) return parts;
  const int64_t chunk = parse_size(stated.is_string() ? stated.get<std::string>() : stated.dump());
  std::map<int64_t, std::string> urls;
  for (const auto& [name, value] : headers.items())
    if (const int64_t number = parse_size(name); number >= 0 && value.is_string()) urls[number] = value;
  const int64_t n = chunk > 0 ? (size + chunk - 1) / chunk : -1;
  if (chunk <= 0 || n > kMaxParts || static_cast<int64_t>(urls.size()) != n || (n > 0 && urls.begin()->first != 1) ||
      (n > 0 && urls.rbegin()->first != n))
    fail(ErrorCode::kInvalidInput, "{}: the hub cuts its {} bytes into {} parts of {}; that does not add up", what,
         size, urls.size(), stated.dump());
  for (const auto& [number, url] : urls) {
    const int64_t begin = (number - 1) * chunk;
    parts.push_back({checked_target(url, what, settings), begin, std::min(chunk, size - begin)});
  }
  return parts;
}

HttpResponse put(HttpClient& client, const Plan& plan, const std::string& url, const FileBody& body,
                 const Settings& settings) {
  HttpResponse response = client.send_patiently({.method = "PUT", .url = url, .headers = plan.headers, .file = body});
  if (response.status / 100 != 2)
    fail(ErrorCode::kIo, "{}: {} takes bytes {} to {} with status {}; start again to go on", plan.object.path,
         url.substr(0, url.find('?')), body.begin, body.begin + body.bytes, response.status);
  if (!same_origin(url, settings.endpoint)) response.linked.clear();
  return response;
}

void send(HttpClient& client, const Settings& settings, const Plan& plan, std::atomic<int64_t>& sent) {
  const File file(plan.object.path);
  if (plan.parts.empty()) {
    put(client, plan, plan.url, {.fd = file.fd, .begin = 0, .bytes = plan.object.size, .sent = &sent}, settings);
  } else {
    Json list = Json::array();
    for (const Part& part : plan.parts) {
      const HttpResponse r = put(client, plan, part.url,
                                 {.fd = file.fd, .begin = part.begin, .bytes = part.bytes, .sent = &sent}, settings);
      const std::string etag = r.header("etag");
      if (etag.empty())
        fail(ErrorCode::kInvalidInput, "{}: the server names no ETag of part {}", plan.object.path, list.size() + 1);
      list.push_back({{"partNumber", list.size() + 1}, {"etag", etag}});
    }
    const HttpResponse r =
        client.send_patiently({.method = "POST",
                               .url = plan.url,
                               .headers = kLfsHeaders,
                               .body = formats::dump_json(Json{{"oid", plan.object.sha256}, {"parts", list}}, -1)});
    if (r.status / 100 != 2) fail_status(r, plan.repo + ": joining the parts of " + plan.object.path, settings);
  }
  if (plan.verify_url.empty()) return;
  std::vector<std::string> headers = kLfsHeaders;
  headers.insert(headers.end(), plan.verify_headers.begin(), plan.verify_headers.end());
  const HttpResponse r = client.send_patiently(
      {.method = "POST",
       .url = plan.verify_url,
       .headers = headers,
       .body = formats::dump_json(Json{{"oid", plan.object.sha256}, {"size", plan.object.size}}, -1)});
  if (r.status / 100 != 2) fail_status(r, plan.repo + ": verifying " + plan.object.path, settings);
}

}  // namespace

std::vector<HubTask> plan_lfs_uploads(HttpClient& client, const Settings& settings, const RepoId& repo,
                                      const std::vector<LfsObject>& objects, std::atomic<int64_t>& sent) {
  Json wanted = Json::array();
  for (const LfsObject& o : objects) wanted.push_back({{"oid", o.sha256}, {"size", o.size}});
  const Json question{{"operation", "upload"},
                      {"transfers", {"basic", "multipart"}},
                      {"objects", wanted},
                      {"hash_algo", "sha256"},
                      {"ref", {{"name", repo.revision}}}};
  const std::string what = repo.name + ": place for large files";
  const HttpResponse response =
      client.send_patiently({.method = "POST",
                             .url = settings.endpoint + git_path(repo) + "/info/lfs/objects/batch",
                             .headers = kLfsHeaders,
                             .body = formats::dump_json(question, -1)});
  if (response.status / 100 != 2) fail_status(response, what, settings);
  const Json answer = formats::parse_json(response.body, what);
  std::map<std::string, const Json*> by_oid;
  for (const Json& entry : member(answer, "objects")) by_oid[text_at(entry, "oid")] = &entry;
  std::vector<HubTask> tasks;
  for (const LfsObject& o : objects) {
    const std::string name = repo.name + ": " + o.path;
    const auto found = by_oid.find(o.sha256);
    if (found == by_oid.end()) fail(ErrorCode::kInvalidInput, "{}: the hub's answer leaves it out", name);
    if (const Json& error = member(*found->second, "error"); !error.is_null())
      fail(ErrorCode::kIo, "{}: the hub refuses it: {}", name, text_at(error, "message"));
    const Json& actions = member(*found->second, "actions");
    const Json& action = member(actions, "upload");
    if (action.is_null()) continue;  // the hub has it
    Plan plan;
    plan.object = o;
    plan.repo = repo.name;
    plan.url = checked_target(text_at(action, "href"), name, settings);
    plan.headers = header_lines(member(action, "header"), name);
    plan.parts = parts_of(member(action, "header"), o.size, name, settings);
    if (!plan.parts.empty()) plan.headers.clear();
    if (const Json& verify = member(actions, "verify"); !verify.is_null()) {
      plan.verify_url = checked_target(text_at(verify, "href"), name, settings);
      plan.verify_headers = header_lines(member(verify, "header"), name);
    }
    tasks.push_back([plan, &settings, &sent](HttpClient& c) { send(c, settings, plan, sent); });
  }
  return tasks;
}

}  // namespace pmetal::hub
