#include "app/cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ostream>

#include <fmt/format.h>

namespace pmetal::app {
namespace {

constexpr std::chrono::seconds kPlainInterval{10};
constexpr int kChartRows = 10, kChartColumns = 80, kMinChartPoints = 8;

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto s = static_cast<int64_t>(std::llround(seconds));
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

// the first `columns` characters of UTF-8 text
std::string cut(const std::string& text, int columns) {
  int n = 0;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && n++ >= columns) return text.substr(0, i);
  return text;
}

// what could move the cursor or change the terminal stays out of our lines
std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

std::string words(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

}  // namespace

Terminal stderr_terminal(jobs::LogLevel level, bool json) {
  Terminal terminal;
  const char* term = std::getenv("TERM");
  terminal.is_tty = ::isatty(STDERR_FILENO) != 0 && (term == nullptr || std::string_view(term) != "dumb");
  const char* no_color = std::getenv("NO_COLOR");
  terminal.has_color = terminal.is_tty && (no_color == nullptr || *no_color == 0);
  terminal.shows_tokens = !json;
  terminal.level = level;
  terminal.width = [] {
    winsize size{};
    return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? int{size.ws_col} : 80;
  };
  terminal.now = [] { return std::chrono::steady_clock::now(); };
  return terminal;
}

ProgressRenderer::ProgressRenderer(Terminal terminal, std::ostream& people, std::ostream& data)
    : terminal_(std::move(terminal)), people_(people), data_(data) {}

void ProgressRenderer::emit(const jobs::JobEvent& event) {
  std::visit([this](const auto& body) { show(body); }, event.body);
}

void ProgressRenderer::clear_live_line() {
  if (has_live_line_) people_ << "\r\x1b[K" << std::flush;
  has_live_line_ = false;
  end_token_text();
}

void ProgressRenderer::end_token_text() {
  if (in_token_text_) data_ << "\n" << std::flush;
  in_token_text_ = false;
}

void ProgressRenderer::print_line(const std::string& line) {
  clear_live_line();
  people_ << printable(line) << "\n" << std::flush;
}

void ProgressRenderer::live_line(const std::string& line, bool is_last) {
  if (terminal_.is_tty) {
    const std::string shown = cut(printable(line), std::max(1, terminal_.width() - 1));
    people_ << "\r" << (terminal_.has_color ? "\x1b[36m" : "") << shown << (terminal_.has_color ? "\x1b[0m" : "")
            << "\x1b[K" << std::flush;
    has_live_line_ = true;
    return;
  }
  const Time now = terminal_.now();
  if (!is_last && last_plain_line_ && now - *last_plain_line_ < kPlainInterval) return;
  last_plain_line_ = now;
  print_line(line);
}

void ProgressRenderer::show(const jobs::PhaseEvent& event) {
  if (terminal_.level > jobs::LogLevel::kInfo || event.phase == "idle" || event.phase == "complete") return;
  if (event.phase == "training") first_step_.reset();  // each training has its own clock
  // "custom" is no word for a person: the detail is the phase
  const bool is_named = event.phase != "custom" || event.detail.empty();
  const std::string line = !is_named              ? event.detail
                           : event.detail.empty() ? words(event.phase)
                                                  : words(event.phase) + ": " + event.detail;
  if (terminal_.is_tty && event.detail.empty())
    live_line(line + " ...", false);
  else
    print_line(line);
}

std::string ProgressRenderer::step_line(const jobs::StepMetric& event) {
  const Time now = terminal_.now();
  if (!first_step_) first_step_ = {now, event.step};
  std::string line = event.total_steps > 0 ? fmt::format("step {}/{}", event.step, event.total_steps)
                                           : fmt::format("step {}", event.step);
  line += fmt::format(" · loss {:.4f} · {:.0f} tokens/s", event.loss, event.tok_sec);
  const int64_t done = event.step - first_step_->second, left = event.total_steps - event.step;
  if (done > 0 && left >= 0) {
    const double elapsed = std::chrono::duration<double>(now - first_step_->first).count();
    line += fmt::format(" · ETA {}", duration_text(elapsed / static_cast<double>(done) * static_cast<double>(left)));
  }
  if (event.mem_gb) line += fmt::format(" · {:.2f} GB", *event.mem_gb);
  line += fmt::format(" · lr {:.3g}", event.lr);
  if (event.grad_norm) line += fmt::format(" · |g| {:.3g}", *event.grad_norm);
  return line;
}

void ProgressRenderer::show(const jobs::StepMetric& event) {
  if (!losses_.empty() && event.step == 1) steps_before_ = static_cast<int64_t>(losses_.back().x);
  losses_.push_back({static_cast<double>(steps_before_ + event.step), event.loss});
  const std::string line = step_line(event);
  if (terminal_.level <= jobs::LogLevel::kInfo) live_line(line, event.step == event.total_steps);
}

void ProgressRenderer::show(const jobs::EvalMetricEvent& event) {
  std::string line = event.step > 0 ? fmt::format("evaluation at step {}: ", event.step) : std::string("evaluation: ");
  line += fmt::format("loss {:.4f}, perplexity {:.4f}", event.loss, event.perplexity);
  if (event.accuracy) line += fmt::format(", accuracy {:.2f} %", 100 * *event.accuracy);
  for (const auto& [name, value] : event.custom) line += fmt::format(", {} {:.4g}", words(name), value);
  print_line(line);
}

void ProgressRenderer::show(const jobs::BenchTrial& event) {
  print_line(fmt::format("{}: {} tokens, {:.1f} tokens/s, median {:.2f} ms, 99 % within {:.2f} ms", event.label,
                         event.tokens, event.tok_per_sec, event.p50_ms, event.p99_ms));
}

void ProgressRenderer::show(const jobs::InferenceDone& event) {
  print_line(fmt::format("{} tokens, {:.1f} tokens/s, first token after {:.0f} ms{}{}", event.tokens, event.tok_per_sec,
                         event.ttft_ms, event.device.empty() ? "" : ", ", event.device));
}

void ProgressRenderer::show(const jobs::TokenEvent& event) {
  if (!terminal_.shows_tokens) return;
  if (has_live_line_) clear_live_line();
  data_ << event.token << std::flush;
  if (!event.token.empty()) in_token_text_ = event.token.back() != '\n';
}

void ProgressRenderer::show(const jobs::LogEvent& event) {
  if (event.level < terminal_.level) return;
  const bool is_notable = event.level >= jobs::LogLevel::kWarn;
  print_line((is_notable ? std::string(jobs::name_of(event.level)) + ": " : std::string()) + event.line);
}

void ProgressRenderer::show(const jobs::ProgressEvent& event) {
  if (terminal_.level > jobs::LogLevel::kInfo) return;
  const bool is_last = event.total && event.current >= *event.total;
  live_line(event.total ? fmt::format("{} {}/{}", event.label, event.current, *event.total)
                        : fmt::format("{} {}", event.label, event.current),
            is_last);
}

void ProgressRenderer::show(const jobs::ArtefactEvent& event) {
  if (terminal_.level <= jobs::LogLevel::kInfo) print_line(fmt::format("wrote {} ({})", event.path, event.role));
}

void ProgressRenderer::show(const jobs::CompletedEvent& event) {
  clear_live_line();
  if (static_cast<int>(losses_.size()) >= kMinChartPoints) {
    constexpr int kLabelColumns = 12;
    const int columns = std::clamp(terminal_.width() - kLabelColumns, 10, kChartColumns);
    const std::string title = steps_before_ > 0
                                  ? fmt::format("loss by step; the last training begins at {}", steps_before_ + 1)
                                  : std::string("loss by step");
    people_ << "\n" << braille_chart(title, losses_, columns, kChartRows) << "\n";
  }
  const jobs::JobSummary& summary = event.summary;
  if (summary.total_steps > 0) {
    std::string line = fmt::format("{} steps, {} tokens", summary.total_steps, summary.total_tokens);
    if (summary.final_loss) line += fmt::format(", final loss {:.4f}", *summary.final_loss);
    print_line(line);
  }
  people_ << std::flush;
}

}  // namespace pmetal::app
