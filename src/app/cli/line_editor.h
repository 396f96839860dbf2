// Lines typed at a terminal: cursor keys, history, the usual control keys. For jobs it is an ordinary input stream.
#pragma once

#include <optional>
#include <streambuf>
#include <string>
#include <vector>

namespace pmetal::app {

// The line and what keys do to it; knows no terminal. Text is UTF-8; the cursor stands between characters.
class LineEditor {
 public:
  enum class Outcome { kMore, kLine, kEnd };  // end: Ctrl-D or Ctrl-C on an empty line

  Outcome feed(char byte);
  std::string take_line();  // after kLine; it goes to the history

  const std::string& text() const { return text_; }
  size_t cursor() const { return cursor_; }  // in bytes
  // the part of the line around the cursor that fits into `columns` characters, and the part of it before the cursor
  struct Shown {
    std::string text, before_cursor;
  };
  Shown shown(size_t columns) const;

 private:
  void escape(const std::string& sequence);
  void show_history(size_t at);
  size_t before(size_t at) const;  // the character border to the left
  size_t after(size_t at) const;
  void erase(size_t begin, size_t end);

  std::string text_, escape_, draft_;
  size_t cursor_ = 0;
  std::vector<std::string> history_;
  size_t history_at_ = 0;
};

// Reads lines from the terminal on `in_fd`, showing them on `out_fd` behind a prompt.
class TerminalInput final : public std::streambuf {
 public:
  TerminalInput(int in_fd, int out_fd) : in_(in_fd), out_(out_fd) {}
  static bool is_possible(int in_fd, int out_fd);

 protected:
  int_type underflow() override;

 private:
  std::optional<std::string> read_line();
  void draw() const;
  void write(const std::string& text) const;

  int in_, out_;
  LineEditor editor_;
  std::string line_;
};

}  // namespace pmetal::app
