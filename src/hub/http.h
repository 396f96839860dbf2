// One HTTP connection at a time over libcurl, with what the hub needs: redirects followed by our own hand, so that the
// access token goes to the endpoint's scheme, host and port and to nobody else, and what is posted to the endpoint
// stays there too; repeated attempts with growing pauses
// when the server is busy (429, 5xx) or the line is cut; a stop flag that ends transfers under way.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hub/settings.h"

namespace pmetal::hub {

// A stretch of an open file as the body of a PUT.
struct FileBody {
  int fd = -1;  // borrowed; -1: no file
  int64_t begin = 0, bytes = 0;
  std::atomic<int64_t>* sent = nullptr;  // grows as bytes leave; taken back when the transfer is no success
};

struct HttpRequest {
  std::string method = "GET";  // GET, HEAD, POST, PUT
  std::string url;
  std::string range = {};                 // "0-99", sent as `Range: bytes=0-99`
  std::vector<std::string> until = {};    // HEAD: a redirect whose headers have all of these is the answer
  std::vector<std::string> headers = {};  // further ones, "Name: value"
  std::string body = {};                  // POST, PUT
  FileBody file = {};                     // PUT, instead of `body`
  bool has_body() const { return method == "POST" || method == "PUT"; }
};

struct HttpResponse {
  int status = 0;
  bool from_endpoint = false;                       // the last answer is the endpoint's own
  std::map<std::string, std::string> headers = {};  // names in lower case; of the last answer
  std::map<std::string, std::string> linked =
      {};                 // x-... headers of all answers the endpoint itself gave; the first counts
  std::string body = {};  // empty when the request had a sink
  std::string header(const std::string& name) const;
};

// takes the body of a 2xx answer piece by piece; false ends the transfer
struct BodySink {
  std::function<bool(const HttpResponse&)> begin;
  std::function<bool(std::string_view)> write;
};

// The line was cut, stalled or never came up. An attempt may follow.
struct TransportError {
  std::string message;
};

class HttpClient {
 public:
  // both are borrowed; `stop` ends transfers and pauses with Error(kCancelled)
  HttpClient(const Settings& settings, const std::atomic<bool>& stop);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // One attempt; redirects are followed. Throws TransportError. Any status is an answer. A transfer that the sink ended
  // returns as if it were complete.
  HttpResponse send(const HttpRequest& request, const BodySink* sink = nullptr);
  // Repeats while the answer is 408, 429 or 5xx or the line fails. Throws Error(kIo) naming the address after the last
  // attempt; any other status is an answer.
  HttpResponse send_patiently(const HttpRequest& request);
  // waits before attempt number `attempt` (from 1): the server's Retry-After, else the growing delay
  void pause(int attempt, const std::string& retry_after) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

bool is_worth_another_attempt(int status);
// throws the Error for an answer that is no success; `what` is the object: "model org/name", "org/name: file.json"
[[noreturn]] void fail_status(const HttpResponse& response, const std::string& what, const Settings& settings);
// a non-negative decimal number without anything else; -1 when it is not
int64_t parse_size(std::string_view text);
bool same_origin(const std::string& a, const std::string& b);  // scheme, host and port

}  // namespace pmetal::hub
