#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include <gtest/gtest.h>

#include "hub/test_server.h"

namespace pmetal::hub {
namespace {

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

ServerRequest parse_request(const std::string& text) {
  ServerRequest request;
  const size_t first = text.find(' '), second = text.find(' ', first + 1);
  request.method = text.substr(0, first);
  request.path = text.substr(first + 1, second - first - 1);
  for (size_t at = text.find("\r\n") + 2; at < text.size();) {
    const size_t end = text.find("\r\n", at);
    const size_t colon = text.find(':', at);
    if (end == std::string::npos || end == at || colon > end) break;
    std::string name = text.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers[name] = text.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  return request;
}

}  // namespace

TestServer::TestServer(std::function<ServerReply(const ServerRequest&)> answer) : answer_(std::move(answer)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::listen(listener_, 64), 0);
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] {
    for (int fd; (fd = ::accept(listener_, nullptr, nullptr)) >= 0;) {
      const std::scoped_lock lock(mutex_);
      if (stop_) {
        ::close(fd);
        return;
      }
      open_.push_back(fd);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  });
}

TestServer::~TestServer() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
    for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
  }
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  for (std::thread& t : threads_) t.join();
  for (const int fd : open_) ::close(fd);
  ::close(listener_);
}

std::string TestServer::url() const { return "http://127.0.0.1:" + std::to_string(port_); }

std::vector<ServerRequest> TestServer::requests() const {
  const std::scoped_lock lock(mutex_);
  return requests_;
}

size_t TestServer::count(const std::string& method, const std::string& path_part) const {
  const auto all = requests();
  return static_cast<size_t>(std::count_if(all.begin(), all.end(), [&](const ServerRequest& r) {
    return r.method == method && r.path.find(path_part) != std::string::npos;
  }));
}

void TestServer::serve(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  std::string text;
  char buffer[4096];
  while (!stop_) {
    const size_t end = text.find("\r\n\r\n");
    if (end == std::string::npos) {
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      text.append(buffer, static_cast<size_t>(n));
      continue;
    }
    ServerRequest request = parse_request(text.substr(0, end + 4));
    const auto n_body = static_cast<size_t>(std::atoll(request.header("content-length").c_str()));
    if (text.size() < end + 4 + n_body) {
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      text.append(buffer, static_cast<size_t>(n));
      continue;
    }
    request.body = text.substr(end + 4, n_body);
    text.erase(0, end + 4 + n_body);
    {
      const std::scoped_lock lock(mutex_);
      requests_.push_back(request);
    }
    const ServerReply reply = answer_(request);
    std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " x\r\nContent-Length: " +
                       (reply.content_length.empty() ? std::to_string(reply.body.size()) : reply.content_length) +
                       "\r\n";
    for (const std::string& h : reply.headers) head += h + "\r\n";
    if (!send_all(fd, head + "\r\n")) break;
    if (request.method == "HEAD") continue;
    std::string_view body = reply.body;
    if (reply.cut_after >= 0) body = body.substr(0, static_cast<size_t>(reply.cut_after));
    const size_t step = reply.chunk_bytes > 0 ? static_cast<size_t>(reply.chunk_bytes) : body.size() + 1;
    bool fine = true;
    for (size_t at = 0; fine && at < body.size(); at += step) {
      fine = send_all(fd, body.substr(at, step));
      if (reply.chunk_bytes > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (!fine || reply.cut_after >= 0) break;
  }
  ::shutdown(fd, SHUT_RDWR);
}

}  // namespace pmetal::hub
