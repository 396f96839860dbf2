// YAML: expected values are those of the YAML 1.2 core schema (chapter 10.3 of the specification).
#include "formats/yaml.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"

namespace pmetal::formats {
namespace {

using nlohmann::ordered_json;

ordered_json yaml(std::string_view text) { return parse_yaml(text, "job.yaml"); }
std::string yaml_error(std::string_view text) {
  try {
    parse_yaml(text, "job.yaml");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST(Yaml, Plain_scalars_follow_the_core_schema) {
  EXPECT_EQ(
      dump_json(yaml("[true, False, TRUE, null, ~, Null, 12, -7, +3, 0x1F, 0o17, 0012, 1e-4, .5, 1., -1.5E+2]"), -1),
      "[true,false,true,null,null,null,12,-7,3,31,15,12,0.0001,0.5,1.0,-150.0]");
  EXPECT_EQ(
      dump_json(yaml("[yes, no, on, off, 12:30, 1_000, 1.2.3, 0x, -0x1, 2026-01-01, q_proj, nan, inf, e5, '']"), -1),
      R"(["yes","no","on","off","12:30","1_000","1.2.3","0x","-0x1","2026-01-01","q_proj","nan","inf","e5",""])");
  const ordered_json special = yaml("[.inf, -.INF, .nan]");
  EXPECT_EQ(special[0].get<double>(), INFINITY);
  EXPECT_EQ(special[1].get<double>(), -INFINITY);
  EXPECT_TRUE(std::isnan(special[2].get<double>()));
  EXPECT_TRUE(yaml("a:")["a"].is_null());
  EXPECT_TRUE(yaml("# nothing\n").is_null());
}

TEST(Yaml, Integers_keep_64_bits) {
  const ordered_json v =
      yaml("[9223372036854775807, 18446744073709551615, -9223372036854775808, 18446744073709551616]");
  EXPECT_EQ(v[0].get<int64_t>(), INT64_MAX);
  EXPECT_EQ(v[1].get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(v[2].get<int64_t>(), INT64_MIN);
  EXPECT_EQ(v[3].get<double>(), 18446744073709551616.0);
}

TEST(Yaml, Quoted_and_block_scalars_are_strings) {
  EXPECT_EQ(dump_json(yaml("&a 'it''s' : !!str \"\\\"\"\r\n'k': !!str # \"\n  'v'\nl: !!str\nm: ''")),
            "{\n  \"it's\": \"\\\"\",\n  \"k\": \"v\",\n  \"l\": \"\",\n  \"m\": \"\"\n}");
  EXPECT_EQ(dump_json(yaml("a: '12'\nb: \"true\"\nc: |\n  1\nd: !!str 1.5\ne: !!float 3\n"), -1),
            R"({"a":"12","b":"true","c":"1\n","d":"1.5","e":3.0})");
}

TEST(Yaml, Anchors_are_copied_at_each_alias) {
  EXPECT_EQ(dump_json(yaml("a: &x {r: 8, t: [q, v]}\nb: *x\nc: [*x, &n 5, *n]\n*n : key"), -1),
            R"({"a":{"r":8,"t":["q","v"]},"b":{"r":8,"t":["q","v"]},"c":[{"r":8,"t":["q","v"]},5,5],"5":"key"})");
}

TEST(Yaml, Expansion_of_aliases_has_a_budget) {
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c <= 'i'; ++c) {
    bomb += fmt::format("{}: &{} [", c, c);
    for (int i = 0; i < 10; ++i) bomb += fmt::format("{}*{}", i ? "," : "", static_cast<char>(c - 1));
    bomb += "]\n";
  }
  const std::string error = yaml_error(bomb);  // line 5 would make 111 111 values, line 4 makes 11 111
  EXPECT_TRUE(error.starts_with("job.yaml:5:")) << error;
  EXPECT_TRUE(error.ends_with(": more than 100000 values or 16777216 bytes after aliases are expanded")) << error;
  EXPECT_EQ(yaml_error("a: &a [1, *a]"), "job.yaml:1:11: this alias is used inside the value it stands for");
}

TEST(Yaml, Errors_name_file_line_and_column) {
  EXPECT_EQ(yaml_error("a: 1\nb: 2\na: 3\n"), "job.yaml:3:1: key \"a\" occurs twice");
  EXPECT_EQ(
      yaml_error("a: 1\n---\nb: 2\n"),
      "job.yaml:2:1: a second document begins here; keep one, and check the indentation if it was meant to be one");
  EXPECT_EQ(yaml_error("- a\nb: 1\n").substr(0, 40), "job.yaml:2:1: a second document begins h");
  EXPECT_EQ(yaml_error("a: \"x\nb: 1\n"), "job.yaml:1:4: this string has no closing quote");
  EXPECT_EQ(yaml_error("b: 1\na: &z !!str 'it''s\n"), "job.yaml:2:4: this string has no closing quote");
  EXPECT_EQ(yaml_error("é: \"\\\"\r\n"), "job.yaml:1:5: this string has no closing quote");
  EXPECT_EQ(yaml_error("a: 1\nb: [1, 2\n").substr(0, 11), "job.yaml:3:");
  EXPECT_EQ(yaml_error("? [a]\n: 1\n"), "job.yaml:1:3: a key must be a scalar, not a list or a mapping");
  EXPECT_EQ(yaml_error("a: !!int x\n"), "job.yaml:1:4: the tag tag:yaml.org,2002:int does not fit the value \"x\"");
  EXPECT_EQ(yaml_error("ok: 1\na: \xff\n"), "job.yaml:2:4: byte 0xff is not valid UTF-8");
  EXPECT_EQ(yaml_error("b:\n  <<: 1\n").substr(0, 31), "job.yaml:2:3: merge keys (<<) a");
}

TEST(Yaml, Depth_and_size_are_limited) {
  EXPECT_EQ(yaml_error(std::string(101, '[') + std::string(101, ']')), "job.yaml:1:101: nested deeper than 100 levels");
  EXPECT_NE(yaml_error(std::string(100'000, '[')), "no error");
  EXPECT_NE(yaml_error(std::string(2'000'000, ' ')), "no error");
}

TEST(Yaml, What_is_written_reads_back_equal) {
  ordered_json value = parse_json(
      R"({"model": "a/b.c-d", "n": 12, "u": 18446744073709551615, "lr": 1e-05, "third": 0.3333333333333333, "big": 1e+300,
          "nan": NaN, "inf": [Infinity, -Infinity], "flag": true, "none": null, "empty": {}, "list": [],
          "like": ["1", "true", "null", "", "~", "0x1", "1e5", ".inf", "- a", "a: b", "#c", "...", "---", "-x", "é",
                   "a\nb\t\"q\"\\", "\u0001\u007f", "12:30", "*a", "&a", "!t", "%d", "@x", " x ", "yes", "."],
          "key: with # signs": {"12": {"true": [[1, [2]], {"x": [{"y": 3}]}]}}})",
      "x");
  value["key: with # signs"][std::string(2000, 'k')] = {{std::string(1100, '"'), {1, {{"z", 2}}}}, {"last", 3}};
  const std::string text = dump_yaml(value);
  EXPECT_EQ(dump_json(yaml(text)), dump_json(value)) << text;
  EXPECT_EQ(dump_yaml(parse_json(R"({"lr": 0.0001, "lora": {"r": 8, "targets": ["q", "v"]}, "name": "12"})", "x")),
            "lr: 0.0001\nlora:\n  r: 8\n  targets:\n    - q\n    - v\nname: \"12\"\n");
  EXPECT_EQ(dump_yaml(ordered_json(nullptr)), "null\n");
}

}  // namespace pmetal::formats
