#include "hub/http.h"

#include <curl/curl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <exception>
#include <thread>

#include "base/error.h"

namespace pmetal::hub {
namespace {

constexpr int kMaxRedirects = 10;
constexpr size_t kMaxBody = size_t{256} << 20;     // answers kept in memory: file lists, search results
constexpr size_t kMaxHeaders = size_t{256} << 10;  // of one answer
constexpr int kConnectTimeoutS = 20;
constexpr int kMaxPauseS = 60;  // even where the server asks for more

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

std::string url_part(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return "";
  std::string out = lower(text);
  curl_free(text);
  return out;
}

std::string origin_of(const std::string& address) {
  const std::unique_ptr<CURLU, void (*)(CURLU*)> url(curl_url(), curl_url_cleanup);
  if (!url || curl_url_set(url.get(), CURLUPART_URL, address.c_str(), 0) != CURLUE_OK) return "";
  return url_part(url.get(), CURLUPART_SCHEME) + "://" + url_part(url.get(), CURLUPART_HOST) + ":" +
         url_part(url.get(), CURLUPART_PORT);
}

std::string without_query(const std::string& url) {
  return url.substr(0, url.find('?'));
}  // signed addresses are secrets

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// what libcurl's callbacks work on during one answer
struct Transfer {
  HttpResponse* response = nullptr;
  const BodySink* sink = nullptr;
  const std::atomic<bool>* stop = nullptr;
  size_t header_bytes = 0;
  bool begun = false, ended_by_sink = false, too_long = false;
  std::exception_ptr thrown = nullptr;  // by the sink; C code lies between
  const FileBody* file = nullptr;
  int64_t file_sent = 0;
};

size_t on_header(char* data, size_t, size_t n, void* user) {
  Transfer& t = *static_cast<Transfer*>(user);
  const std::string_view line = trimmed({data, n});
  t.header_bytes += n;
  if (t.header_bytes > kMaxHeaders) {
    t.too_long = true;
    return 0;
  }
  if (line.starts_with("HTTP/")) {  // a new answer (after 100 Continue)
    t.response->headers.clear();
    const size_t space = line.find(' ');
    t.response->status = 0;
    if (space != std::string_view::npos)
      std::from_chars(line.data() + space + 1, line.data() + line.size(), t.response->status);
    return n;
  }
  const size_t colon = line.find(':');
  if (colon != std::string_view::npos)
    t.response->headers.emplace(lower(line.substr(0, colon)), std::string(trimmed(line.substr(colon + 1))));
  return n;
}

size_t on_body(char* data, size_t, size_t n, void* user) {
  Transfer& t = *static_cast<Transfer*>(user);
  const std::string_view bytes(data, n);
  const bool success = t.response->status / 100 == 2;
  if (t.sink && success) {
    bool goes_on = false;
    try {
      goes_on = (t.begun || t.sink->begin(*t.response)) && t.sink->write(bytes);
    } catch (...) {
      t.thrown = std::current_exception();
    }
    t.begun = true;
    t.ended_by_sink = !goes_on;
    return goes_on ? n : 0;
  }
  if (t.response->body.size() + n > kMaxBody) {
    t.too_long = true;
    return 0;
  }
  t.response->body.append(bytes);
  return n;
}

size_t on_read(char* out, size_t, size_t n, void* user) {
  Transfer& t = *static_cast<Transfer*>(user);
  const auto wanted = static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(n), t.file->bytes - t.file_sent));
  const ssize_t got = wanted == 0 ? 0 : ::pread(t.file->fd, out, wanted, t.file->begin + t.file_sent);
  if (got < 0 || (got == 0 && wanted > 0)) {
    t.thrown = std::make_exception_ptr(
        Error(ErrorCode::kIo, "a file could not be read to its end while it was sent; was it changed?"));
    return CURL_READFUNC_ABORT;
  }
  t.file_sent += got;
  if (t.file->sent) *t.file->sent += got;
  return static_cast<size_t>(got);
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Transfer*>(user)->stop->load(std::memory_order_relaxed) ? 1 : 0;
}

void start_curl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) fail(ErrorCode::kIo, "libcurl cannot start: {}", curl_easy_strerror(code));
}

}  // namespace

struct HttpClient::Impl {
  const Settings& settings;
  const std::atomic<bool>& stop;
  CURL* curl = nullptr;

  // one answer of one server; returns where it points to when it is a redirect
  std::string ask(const HttpRequest& request, const std::string& url, const BodySink* sink, HttpResponse& response) {
    if (stop) fail(ErrorCode::kCancelled, "stopped on request");
    Transfer transfer{.response = &response, .sink = sink, .stop = &stop};
    std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, curl_slist_free_all);
    const auto add = [&](const std::string& line) {
      headers.reset(curl_slist_append(headers.release(), line.c_str()));
    };
    const bool is_ours = same_origin(url, settings.endpoint);
    if (is_ours && !settings.token.empty()) add("Authorization: Bearer " + settings.token);
    if (!request.range.empty()) add("Range: bytes=" + request.range);
    for (const std::string& line : request.headers) add(line);
    if (request.has_body()) add("Expect:");  // no waiting for leave to send

    curl_easy_reset(curl);  // keeps connections
    curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "pmetal");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(curl, CURLOPT_NOBODY, request.method == "HEAD" ? 1L : 0L);
    if (request.file.fd >= 0) {
      transfer.file = &request.file;
      curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
      curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.file.bytes));
      curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
      curl_easy_setopt(curl, CURLOPT_READDATA, &transfer);
      curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L * 1024);
    } else if (request.has_body()) {
      curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.body.data());
    }
    if (request.has_body()) curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, static_cast<long>(kConnectTimeoutS));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(settings.stall_timeout_s));
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 512L * 1024);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
    response = HttpResponse{.from_endpoint = is_ours, .linked = std::move(response.linked)};
    const CURLcode code = curl_easy_perform(curl);
    if (transfer.file && transfer.file->sent && (code != CURLE_OK || response.status / 100 != 2))
      *transfer.file->sent -= transfer.file_sent;
    if (stop) fail(ErrorCode::kCancelled, "stopped on request");
    if (transfer.thrown) std::rethrow_exception(transfer.thrown);
    if (transfer.too_long)
      fail(ErrorCode::kIo, "{}: the answer is longer than any that is expected", without_query(url));
    if (code != CURLE_OK && !transfer.ended_by_sink)
      throw TransportError{fmt::format("{}: {}", without_query(url), curl_easy_strerror(code))};
    if (is_ours)
      for (const auto& [name, value] : response.headers)
        if (name.starts_with("x-")) response.linked.emplace(name, value);
    if (!is_redirect(response.status)) return "";
    char* target = nullptr;
    curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &target);
    if (!target) fail(ErrorCode::kIo, "{}: redirects to nowhere", without_query(url));
    return target;
  }
};

HttpClient::HttpClient(const Settings& settings, const std::atomic<bool>& stop) {
  start_curl();
  impl_ = std::make_unique<Impl>(Impl{settings, stop});
  impl_->curl = curl_easy_init();
  if (!impl_->curl) fail(ErrorCode::kOutOfMemory, "no memory for a connection");
}

HttpClient::~HttpClient() { curl_easy_cleanup(impl_->curl); }

HttpResponse HttpClient::send(const HttpRequest& request, const BodySink* sink) {
  HttpResponse response;
  std::string url = request.url;
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    const std::string target = impl_->ask(request, url, sink, response);
    if (target.empty()) return response;
    if (!request.until.empty() && std::all_of(request.until.begin(), request.until.end(),
                                              [&](const std::string& name) { return response.linked.contains(name); }))
      return response;
    if (!target.starts_with("https://") && !(target.starts_with("http://") && url.starts_with("http://")))
      fail(ErrorCode::kIo, "{}: redirects to {}, which is not https", without_query(url), without_query(target));
    if (request.has_body()) {  // 301 to 303 would turn it into a GET
      if (response.status != 307 && response.status != 308)
        fail(ErrorCode::kIo, "{}: answers {} with a redirect of status {}, which drops what was sent",
             without_query(url), request.method, response.status);
      if (same_origin(url, impl_->settings.endpoint) && !same_origin(target, url))
        fail(ErrorCode::kIo, "{}: redirects to {}; nothing is posted to another server", without_query(url),
             without_query(target));
    }
    url = target;
  }
  fail(ErrorCode::kIo, "{}: more than {} redirects", without_query(request.url), kMaxRedirects);
}

HttpResponse HttpClient::send_patiently(const HttpRequest& request) {
  for (int attempt = 1;; ++attempt) {
    std::string problem, retry_after;
    try {
      HttpResponse response = send(request);
      if (!is_worth_another_attempt(response.status) || attempt == impl_->settings.attempts) return response;
      retry_after = response.header("retry-after");
    } catch (const TransportError& e) {
      problem = e.message;
    }
    if (attempt >= impl_->settings.attempts)
      fail(ErrorCode::kIo, "{} ({} attempts); check the network{}", problem, attempt,
           request.has_body() ? ", then start again: what has arrived is not sent twice"
                              : ", or set HF_HUB_OFFLINE=1 to use only what is cached");
    pause(attempt, retry_after);
  }
}

void HttpClient::pause(int attempt, const std::string& retry_after) const {
  using std::chrono::milliseconds;
  const int64_t asked = parse_size(retry_after);
  const int64_t delay = asked > 0 ? std::min<int64_t>(asked, kMaxPauseS) * 1000
                                  : int64_t{impl_->settings.retry_delay_ms} << std::min(attempt - 1, 4);
  const auto end = std::chrono::steady_clock::now() + milliseconds(delay);
  while (std::chrono::steady_clock::now() < end) {
    if (impl_->stop) fail(ErrorCode::kCancelled, "stopped on request");
    std::this_thread::sleep_for(milliseconds(std::min<int64_t>(delay, 50)));
  }
}

std::string HttpResponse::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

bool is_worth_another_attempt(int status) { return status == 408 || status == 429 || (status >= 500 && status <= 599); }

void fail_status(const HttpResponse& response, const std::string& what, const Settings& settings) {
  const int status = response.status;
  if (status == 401 || status == 403)
    fail(ErrorCode::kNotFound, "{}: {} refuses access (status {}); {}", what, settings.endpoint, status,
         settings.token.empty() ? "if it is private or gated, or to see whether it exists, set HF_TOKEN"
                                : "the token in use has no right to it: accept its terms on its page, or use another");
  if (status == 404) {
    const auto code = response.linked.find("x-error-code");
    const bool revision = code != response.linked.end() && code->second == "RevisionNotFound";
    fail(ErrorCode::kNotFound, "{}: not found on {}; check the {}", what, settings.endpoint,
         revision ? "revision" : "spelling");
  }
  fail(ErrorCode::kIo, "{}: {} answers with status {}{}", what, settings.endpoint, status,
       status == 429       ? ": too many requests; wait a while, or set HF_TOKEN for a higher limit"
       : status / 100 == 5 ? "; try again later"
                           : "");
}

int64_t parse_size(std::string_view text) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 && !text.empty() && text[0] != '-'
             ? value
             : -1;
}

bool same_origin(const std::string& a, const std::string& b) {
  const std::string origin = origin_of(a);
  return !origin.empty() && origin == origin_of(b);
}

}  // namespace pmetal::hub
