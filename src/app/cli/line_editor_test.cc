#include "app/cli/line_editor.h"

#include <gtest/gtest.h>

namespace pmetal::app {
namespace {

LineEditor::Outcome type(LineEditor& e, const std::string& keys) {
  auto outcome = LineEditor::Outcome::kMore;
  for (char c : keys) outcome = e.feed(c);
  return outcome;
}
std::string after(const std::string& keys) {
  LineEditor e;
  type(e, keys);
  return e.text();
}

constexpr char kLeft[] = "\x1b[D", kRight[] = "\x1b[C", kUp[] = "\x1b[A", kDown[] = "\x1b[B";

TEST(LineEditor, Keys_change_the_line_at_the_cursor) {
  EXPECT_EQ(after(std::string("ac") + kLeft + "b"), "abc");
  EXPECT_EQ(after(std::string("abc") + kLeft + kLeft + kRight + "\x7f"), "ac");
  EXPECT_EQ(after(std::string("abc") + "\x1b[H" + "\x1b[3~"), "bc");
  EXPECT_EQ(after("abc\x01x\x05y"), "xabcy");
  EXPECT_EQ(after(std::string("one two three\x17")), "one two ");
  EXPECT_EQ(after(std::string("abc") + kLeft + "\x0b"), "ab");
  EXPECT_EQ(after(std::string("abc") + kLeft + "\x15"), "c");
}

TEST(LineEditor, Characters_of_several_bytes_go_as_one) {
  EXPECT_EQ(after("a\xC3\xA4\xE2\x82\xAC\x7f"), "a\xC3\xA4");
  EXPECT_EQ(after(std::string("\xC3\xA4\xE2\x82\xAC") + kLeft + kLeft + "x"), "x\xC3\xA4\xE2\x82\xAC");
}

TEST(LineEditor, Unknown_keys_do_nothing) {
  EXPECT_EQ(after("a\x1b[15~\x1b[1;5Cb\x02\x06"), "ab");
  EXPECT_EQ(after(std::string("a") + '\0' + "b"), "ab");
}

TEST(LineEditor, History_goes_back_and_returns_to_the_draft) {
  LineEditor e;
  EXPECT_EQ(type(e, "one\r"), LineEditor::Outcome::kLine);
  EXPECT_EQ(e.take_line(), "one");
  type(e, "two\n");
  EXPECT_EQ(e.take_line(), "two");
  type(e, "dra");
  type(e, kUp);
  EXPECT_EQ(e.text(), "two");
  type(e, std::string(kUp) + kUp);
  EXPECT_EQ(e.text(), "one");
  type(e, std::string(kDown) + kDown + kDown);
  EXPECT_EQ(e.text(), "dra");
}

TEST(LineEditor, An_empty_line_ends_by_control_d_or_c) {
  LineEditor e;
  EXPECT_EQ(type(e, "x\x03"), LineEditor::Outcome::kMore);
  EXPECT_EQ(e.text(), "");
  EXPECT_EQ(type(e, "\x03"), LineEditor::Outcome::kEnd);
  EXPECT_EQ(type(e, "\x04"), LineEditor::Outcome::kEnd);
}

TEST(LineEditor, A_long_line_shows_what_is_around_the_cursor) {
  LineEditor e;
  type(e, "0123456789");
  EXPECT_EQ(e.shown(5).text, "6789");
  EXPECT_EQ(e.shown(5).before_cursor, "6789");
  type(e, "\x01");
  EXPECT_EQ(e.shown(5).text, "0123");
  EXPECT_EQ(e.shown(5).before_cursor, "");
  EXPECT_EQ(e.shown(80).text, "0123456789");
}

}  // namespace
}  // namespace pmetal::app
