#include "app/cli/line_editor.h"

#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace pmetal::app {
namespace {

constexpr char kPrompt[] = "> ";
constexpr size_t kPromptColumns = 2;
constexpr size_t kMaxHistory = 1000;
constexpr size_t kMaxLine = 1 << 20;  // bytes: what is pasted beyond is dropped
constexpr size_t kMaxEscape = 16;

constexpr char control(char letter) { return static_cast<char>(letter & 0x1f); }
constexpr char kBackspace = 0x7f, kEscape = 0x1b;
bool is_inside_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// keys one by one and no echo, for the time of one line
class RawMode {
 public:
  explicit RawMode(int fd) : fd_(fd) {
    tcgetattr(fd, &before_);
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
    raw.c_iflag &= ~static_cast<tcflag_t>(IXON);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(fd, TCSADRAIN, &raw);
  }
  ~RawMode() { tcsetattr(fd_, TCSADRAIN, &before_); }
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;

 private:
  int fd_;
  termios before_{};
};

}  // namespace

size_t LineEditor::before(size_t at) const {
  if (at > 0) --at;
  while (at > 0 && is_inside_character(text_[at])) --at;
  return at;
}
size_t LineEditor::after(size_t at) const {
  if (at < text_.size()) ++at;
  while (at < text_.size() && is_inside_character(text_[at])) ++at;
  return at;
}
void LineEditor::erase(size_t begin, size_t end) {
  text_.erase(begin, end - begin);
  cursor_ = begin;
}

void LineEditor::show_history(size_t at) {
  if (history_at_ == history_.size()) draft_ = text_;
  history_at_ = at;
  text_ = at == history_.size() ? draft_ : history_[at];
  cursor_ = text_.size();
}

// what stands behind ESC: "[A" and its like
void LineEditor::escape(const std::string& s) {
  if (s == "[A" || s == "OA") {
    if (history_at_ > 0) show_history(history_at_ - 1);
  } else if (s == "[B" || s == "OB") {
    if (history_at_ < history_.size()) show_history(history_at_ + 1);
  } else if (s == "[C" || s == "OC") {
    cursor_ = after(cursor_);
  } else if (s == "[D" || s == "OD") {
    cursor_ = before(cursor_);
  } else if (s == "[H" || s == "OH" || s == "[1~" || s == "[7~") {
    cursor_ = 0;
  } else if (s == "[F" || s == "OF" || s == "[4~" || s == "[8~") {
    cursor_ = text_.size();
  } else if (s == "[3~") {
    erase(cursor_, after(cursor_));
  }
}

LineEditor::Outcome LineEditor::feed(char c) {
  if (!escape_.empty()) {
    escape_ += c;
    const bool is_begin = escape_.size() == 2 && (c == '[' || c == 'O');
    const bool is_final = !is_begin && c >= 0x40 && c <= 0x7e;
    if (is_final || escape_.size() > kMaxEscape) {
      escape(escape_.substr(1));
      escape_.clear();
    }
    return Outcome::kMore;
  }
  switch (c) {
    case '\r':
    case '\n': return Outcome::kLine;
    case kEscape: escape_ = c; break;
    case control('c'):
      if (text_.empty()) return Outcome::kEnd;
      erase(0, text_.size());
      break;
    case control('d'):
      if (text_.empty()) return Outcome::kEnd;
      erase(cursor_, after(cursor_));
      break;
    case kBackspace:
    case control('h'): erase(before(cursor_), cursor_); break;
    case control('a'): cursor_ = 0; break;
    case control('e'): cursor_ = text_.size(); break;
    case control('b'): cursor_ = before(cursor_); break;
    case control('f'): cursor_ = after(cursor_); break;
    case control('k'): text_.resize(cursor_); break;
    case control('u'): erase(0, cursor_); break;
    case control('w'): {
      size_t begin = cursor_;
      while (begin > 0 && text_[begin - 1] == ' ') --begin;
      while (begin > 0 && text_[begin - 1] != ' ') --begin;
      erase(begin, cursor_);
      break;
    }
    case control('p'): escape("[A"); break;
    case control('n'): escape("[B"); break;
    default:
      if (c == '\t') c = ' ';
      if (static_cast<unsigned char>(c) >= 0x20 && text_.size() < kMaxLine) text_.insert(cursor_++, 1, c);
  }
  return Outcome::kMore;
}

std::string LineEditor::take_line() {
  if (!text_.empty() && (history_.empty() || history_.back() != text_)) history_.push_back(text_);
  if (history_.size() > kMaxHistory) history_.erase(history_.begin());
  history_at_ = history_.size();
  cursor_ = 0;
  draft_.clear();
  return std::exchange(text_, {});
}

LineEditor::Shown LineEditor::shown(size_t columns) const {
  size_t begin = cursor_, end = cursor_, n = 0;
  while (n + 1 < columns && begin > 0) {
    begin = before(begin);
    ++n;
  }
  while (n + 1 < columns && end < text_.size()) {
    end = after(end);
    ++n;
  }
  return {text_.substr(begin, end - begin), text_.substr(begin, cursor_ - begin)};
}

bool TerminalInput::is_possible(int in_fd, int out_fd) { return ::isatty(in_fd) && ::isatty(out_fd); }

void TerminalInput::write(const std::string& text) const {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(out_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += static_cast<size_t>(n);
  }
}

void TerminalInput::draw() const {
  winsize size{};
  const size_t columns = ::ioctl(out_, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80;
  const LineEditor::Shown s = editor_.shown(columns - kPromptColumns);
  // written twice, so that the terminal itself finds the cursor's column, however wide the characters are
  write("\r\x1b[K" + std::string(kPrompt) + s.text + "\r" + kPrompt + s.before_cursor);
}

std::optional<std::string> TerminalInput::read_line() {
  const RawMode raw(in_);
  draw();
  for (;;) {
    char byte;
    const ssize_t n = ::read(in_, &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    const LineEditor::Outcome outcome = n == 1 ? editor_.feed(byte) : LineEditor::Outcome::kEnd;
    if (outcome == LineEditor::Outcome::kMore) {
      draw();
      continue;
    }
    write("\r\n");
    if (outcome == LineEditor::Outcome::kEnd) return std::nullopt;
    return editor_.take_line() + "\n";
  }
}

TerminalInput::int_type TerminalInput::underflow() {
  std::optional<std::string> line = read_line();
  if (!line) return traits_type::eof();
  line_ = std::move(*line);
  setg(line_.data(), line_.data(), line_.data() + line_.size());
  return traits_type::to_int_type(line_[0]);
}

}  // namespace pmetal::app
