// JSON: what Python's json module accepts and writes. Expected values: RFC 8259, the Unicode standard, Python 3.
#include "formats/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/testing.h"
#include "formats/json_reader.h"

namespace pmetal::formats {
namespace {

using nlohmann::ordered_json;

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}
std::string parse_error(std::string_view text, const JsonOptions& options = {}) {
  return message_of([&] { parse_json(text, "config.json", options); });
}

}  // namespace

TEST(Json, Bare_nan_and_infinity_become_doubles_but_not_inside_strings) {
  const ordered_json json = parse_json(R"({"a": NaN, "b": [-Infinity, Infinity], "c": "NaN"})", "config.json");
  EXPECT_TRUE(std::isnan(json["a"].get<double>()));
  EXPECT_EQ(json["b"][0].get<double>(), -INFINITY);
  EXPECT_EQ(json["b"][1].get<double>(), INFINITY);
  EXPECT_EQ(json["c"], "NaN");
  EXPECT_EQ(parse_error("[NaN]", {.limits = {.allow_nonfinite = false}}),
            "config.json:1:2: expected a JSON value, got 'N'");
}

TEST(Json, Numbers_keep_their_kind_and_all_their_bits) {
  const ordered_json json = parse_json(
      "[9223372036854775807, 18446744073709551615, -9223372036854775808, 18446744073709551616, 0.1, 1e-6, 5e-324, "
      "1e-400, -0.0, 2.0]",
      "x");
  EXPECT_EQ(json[0].get<int64_t>(), INT64_MAX);
  EXPECT_EQ(json[1].get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(json[2].get<int64_t>(), INT64_MIN);
  EXPECT_EQ(json[3].get<double>(), 18446744073709551616.0);
  EXPECT_EQ(json[4].get<double>(), 0.1);
  EXPECT_EQ(json[5].get<double>(), 1e-6);
  EXPECT_EQ(json[6].get<double>(), 5e-324);
  EXPECT_EQ(json[7].get<double>(), 0.0);
  EXPECT_TRUE(std::signbit(json[8].get<double>()));
  EXPECT_TRUE(json[9].is_number_float());
  EXPECT_EQ(parse_error("1e400"), "config.json:1:1: this number is too large for a double");
}

TEST(Json, Escapes_and_utf8) {
  EXPECT_EQ(parse_json(R"("\u00e9\u20ac\ud83d\ude00\"\\\/\b\f\n\r\t")", "x"), "é€😀\"\\/\b\f\n\r\t");
  EXPECT_EQ(parse_error("\"a\xff\""), "config.json:1:3: byte 0xff inside a string is not valid UTF-8");
  EXPECT_EQ(parse_error("\"\xed\xa0\x80\""), "config.json:1:2: byte 0xed inside a string is not valid UTF-8");
  EXPECT_EQ(parse_error("\"\\ud800x\""), "config.json:1:2: first half of a surrogate pair without the second");
}

TEST(Json, Errors_name_file_line_and_column) {
  EXPECT_EQ(parse_error("{\n \"a\": 1,\n \"b\" 2\n}"), "config.json:3:6: expected ':' after the key, got '2'");
  EXPECT_EQ(parse_error("[1, 2"), "config.json:1:6: expected ',' or ']' after a value, got the end of the file");
  EXPECT_EQ(parse_error("{\"a\": \"x"), "config.json:1:7: this string has no closing quote");
  EXPECT_EQ(parse_error("{} {}"), "config.json:1:4: expected the end of the file, got '{'");
  EXPECT_EQ(parse_error(""), "config.json:1:1: expected a JSON value, got the end of the file");
}

TEST(Json, Depth_and_size_are_limited) {
  EXPECT_NO_THROW(parse_json(std::string(512, '[') + std::string(512, ']'), "x"));
  EXPECT_EQ(parse_error(std::string(513, '[') + std::string(513, ']')),
            "config.json:1:513: nested deeper than 512 levels");
  EXPECT_EQ(parse_error(std::string(1'000'000, '[')), "config.json:1:513: nested deeper than 512 levels");
  EXPECT_EQ(parse_error("[1,2,3]", {.limits = {.max_bytes = 6}}),
            "config.json: is 7 bytes long, at most 6 are read as JSON");
}

TEST(Json, Of_a_repeated_key_the_last_value_counts_as_in_python) {
  const char* text = R"({"a": 1, "b": 2, "a": 3, "c": 4, "a": 5})";
  EXPECT_EQ(dump_json(parse_json(text, "x"), -1), R"({"a":5,"b":2,"c":4})");
  EXPECT_EQ(parse_error(text, {.limits = {}, .refuse_duplicate_keys = true}),
            "config.json: key \"a\" occurs twice in one object; remove one of them");
}

TEST(Json, A_hundred_thousand_keys_do_not_take_quadratic_time) {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += fmt::format("\"k{}\":{},", i, i);
  text.back() = '}';
  EXPECT_EQ(parse_json(text, "x").size(), 100'000u);
}

TEST(Json, Dump_is_laid_out_as_python_does) {
  const ordered_json json = parse_json(R"({"a":[1,2.5,"é"],"b":{},"c":[],"d":{"e":NaN,"f":1e-05},"g":-Infinity})", "x");
  EXPECT_EQ(dump_json(json), R"({
  "a": [
    1,
    2.5,
    "é"
  ],
  "b": {},
  "c": [],
  "d": {
    "e": NaN,
    "f": 1e-05
  },
  "g": -Infinity
})");
  EXPECT_EQ(dump_json(json, -1, NonFinite::kNull),
            R"({"a":[1,2.5,"é"],"b":{},"c":[],"d":{"e":null,"f":1e-05},"g":null})");
  EXPECT_EQ(dump_json(ordered_json("a\xff z"), -1), "\"a\xef\xbf\xbd z\"");
}

TEST(JsonReader, Reads_types_and_names_file_field_and_value_when_they_differ) {
  const ordered_json json = parse_json(
      R"({"i": 64, "f": 64.0, "x": 1.5, "s": "abc", "t": true, "n": null, "l": [1, 2, "z"],
          "rope": {"factor": "abc", "inner": [{"k": 1}, {"k": []}]}, "u": 18446744073709551615})",
      "config.json");
  const JsonReader reader(json, "config.json");
  EXPECT_EQ(reader.integer("i"), 64);
  EXPECT_EQ(reader.integer("f"), 64);
  EXPECT_EQ(reader.number("i"), 64.0);
  EXPECT_EQ(reader.number("x"), 1.5);
  EXPECT_TRUE(reader.boolean("t"));
  EXPECT_EQ(reader.string("s"), "abc");
  EXPECT_FALSE(reader.has("n"));
  EXPECT_EQ(reader.integer_or("n", 7), 7);
  EXPECT_EQ(reader.number_or("absent", 0.5), 0.5);
  EXPECT_EQ(reader.maybe_string("absent"), std::nullopt);
  EXPECT_EQ(reader.object("rope").objects("inner")[0].integer("k"), 1);
  const auto error = [](const std::function<void()>& action) { return message_of(action); };
  EXPECT_EQ(error([&] { reader.integer("s"); }), "config.json: field \"s\": expected an integer, got string \"abc\"");
  EXPECT_EQ(error([&] { reader.integer("x"); }), "config.json: field \"x\": expected an integer, got number 1.5");
  EXPECT_EQ(error([&] { reader.integer("u"); }),
            "config.json: field \"u\": expected an integer, got number 18446744073709551615");
  EXPECT_EQ(error([&] { reader.integer("i", 1, 32); }),
            "config.json: field \"i\": expected an integer from 1 to 32, got 64");
  EXPECT_EQ(error([&] { reader.string("absent"); }),
            "config.json: field \"absent\": expected a string, the field is missing");
  EXPECT_EQ(error([&] { reader.integers("l"); }), "config.json: field \"l[2]\": expected an integer, got string \"z\"");
  EXPECT_EQ(error([&] { reader.object("rope").number("factor"); }),
            "config.json: field \"rope.factor\": expected a number, got string \"abc\"");
  EXPECT_EQ(error([&] { reader.object("rope").objects("inner")[1].integer("k"); }),
            "config.json: field \"rope.inner[1].k\": expected an integer, got an array of 0 values");
  EXPECT_EQ(error([&] { JsonReader(json["l"], "config.json"); }),
            "config.json: expected an object, got an array of 3 values");
}

TEST(JsonReader, Unread_fields_are_those_nobody_asked_for) {
  const ordered_json json = parse_json(R"({"z": 1, "a": 2, "m": null})", "x");
  const JsonReader reader(json, "x");
  reader.integer("a");
  EXPECT_EQ(reader.unread(), (std::vector<std::string>{"z", "m"}));
  EXPECT_EQ(reader.keys(), (std::vector<std::string>{"z", "a", "m"}));
}

TEST(Json, Every_config_of_the_fixtures_is_read_and_survives_a_dump) {
  std::vector<fs::path> roots = {testing_support::data_dir()};
  if (!testing_support::shared_dir().empty()) roots.push_back(testing_support::shared_dir() / "fixtures");
  int n_files = 0;
  for (const fs::path& root : roots)
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      const std::string name = entry.path().filename().string();
      if (name != "config.json" && name != "config_legacy.json" && name != "adapter_config.json" &&
          !name.ends_with(".index.json"))
        continue;
      SCOPED_TRACE(entry.path().string());
      const ordered_json json = read_json(entry.path());
      EXPECT_FALSE(JsonReader(json, name).keys().empty());
      EXPECT_EQ(dump_json(parse_json(dump_json(json), name)), dump_json(json));
      ++n_files;
    }
  EXPECT_GE(n_files, 2);
}

}  // namespace pmetal::formats
