// A hub on the loopback interface that misbehaves on request, for tests. Each connection is answered by a thread of its
// own; what was asked is on record.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace pmetal::hub {

struct ServerRequest {
  std::string method, path;                    // path with its query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body = {};
  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

struct ServerReply {
  int status = 200;
  std::vector<std::string> headers = {};  // without Content-Length
  std::string body = {};
  std::string content_length = {};  // what is claimed; empty: the truth
  int64_t cut_after = -1;           // closes after so many bytes of the body
  int chunk_bytes = 0;              // > 0: in chunks of so many bytes, with a millisecond between
};

class TestServer {
 public:
  explicit TestServer(std::function<ServerReply(const ServerRequest&)> answer);
  ~TestServer();
  std::string url() const;  // "http://127.0.0.1:<port>"
  std::vector<ServerRequest> requests() const;
  size_t count(const std::string& method, const std::string& path_part) const;

 private:
  void serve(int fd);
  std::function<ServerReply(const ServerRequest&)> answer_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::vector<ServerRequest> requests_;
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace pmetal::hub
