// The functions behind `pmetal dataset`, on small files with expectations worked out by hand.
#include "data/tools/tools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/testing.h"
#include "data/test_support.h"

namespace pmetal::data {
namespace {

using testing_support::byte_encoder;
using testing_support::chatml;
using Json = nlohmann::json;

class ToolsTest : public ::testing::Test {
 protected:
  void SetUp() override { folder_ = pmetal::testing_support::scratch_dir("tools"); }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path write(const std::string& name, const std::string& text) {
    write_file_atomic(folder_ / name, text);
    return folder_ / name;
  }
  std::vector<Json> rows(const fs::path& path) {
    std::vector<Json> out;
    const auto source = open_source(path);
    Row row;
    while (source->next(row)) out.push_back(Json::parse(row.json));
    return out;
  }
  std::string texts(const fs::path& path) {
    std::string out;
    for (const auto& r : rows(path)) out += r.at("text").get<std::string>();
    return out;
  }
  std::string numbered(int n, const std::string& prefix = "") {
    std::string out;
    for (int i = 0; i < n; ++i)
      out += "{\"text\":\"" + prefix + std::to_string(i) + "\",\"kind\":\"" + (i % 4 ? "a" : "b") + "\"}\n";
    return out;
  }
  fs::path folder_;
  ExampleBuilder builder_{byte_encoder(), chatml(), {}};
};

TEST_F(ToolsTest, Analyze_counts_formats_lengths_and_what_is_wrong) {
  AnalyzeOptions o;
  o.path = write("a.jsonl",
                 "{\"text\":\"abc\"}\n{\"text\":\"abc\"}\n{\"text\":\"abcdefg\"}\n{\"x\":1}\n"
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}\n");
  o.builder = &builder_;
  o.max_length = 6;
  const auto r = analyze(o);
  EXPECT_EQ(r.rows, 5);
  EXPECT_EQ(r.formats, (std::map<std::string, int64_t>{{"messages", 1}, {"text", 3}}));
  EXPECT_EQ(r.malformed, 1);
  EXPECT_THAT(r.problems.at(0).where, ::testing::EndsWith("a.jsonl:4"));
  EXPECT_THAT(r.problems.at(0).message, ::testing::Not(::testing::HasSubstr("a.jsonl")));
  EXPECT_EQ(r.duplicates, 1);
  EXPECT_EQ(r.truncated, 1);        // 7 + end token
  EXPECT_EQ(r.nothing_learned, 1);  // the chat without an answer
  EXPECT_EQ(r.lengths.count, 3);
  EXPECT_EQ(r.lengths.total, 4 + 4 + 8);
  EXPECT_EQ(r.lengths.median, 4);
  EXPECT_EQ(r.learned_tokens, 3 + 3 + 7);
  EXPECT_EQ(r.packing_length, 8);
  EXPECT_DOUBLE_EQ(r.packing_fill, 1.0);
  EXPECT_EQ(r.suggested_max_length, 64);
  EXPECT_EQ(r.turns_by_role.at("user"), 1);
  o.builder = nullptr;
  EXPECT_FALSE(analyze(o).is_tokens);
}

TEST(LengthStatistics, Histogram_covers_every_length_once) {
  const auto s = length_statistics({1, 5, 5, 9, 20}, 4);
  ASSERT_EQ(s.histogram.size(), 4u);
  EXPECT_EQ(s.histogram[0].low, 1);
  EXPECT_EQ(s.histogram[0].high, 6);
  EXPECT_EQ(s.histogram[0].count, 3);
  EXPECT_EQ(s.histogram[1].count, 1);
  EXPECT_EQ(s.histogram[3].count, 1);
  EXPECT_DOUBLE_EQ(s.mean, 8);
  EXPECT_EQ(s.shortest, 1);
  EXPECT_EQ(s.longest, 20);
  EXPECT_TRUE(length_statistics({}).histogram.empty());
}

TEST_F(ToolsTest, Validate_names_every_kind_of_problem) {
  AnalyzeOptions o;
  o.path =
      write("a.jsonl",
            "{\"prompt\":\"p\",\"completion\":\"\"}\n{\"text\":\"fine\"}\n{\"text\":\"much too long\"}\nnot json\n");
  o.builder = &builder_;
  o.max_length = 10;
  const auto r = validate(o);
  EXPECT_EQ(r.rows, 4);
  EXPECT_EQ(r.valid, 1);
  EXPECT_EQ(r.empty_response, 1);
  EXPECT_EQ(r.too_long, 1);
  EXPECT_EQ(r.malformed, 1);
  EXPECT_FALSE(r.is_valid());
  EXPECT_THAT(r.problems.at(1).message, ::testing::HasSubstr("14 tokens; the limit is 10"));
}

TEST_F(ToolsTest, Preview_shows_text_spans_and_token_borders) {
  AnalyzeOptions o;
  o.path = write("a.jsonl",
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]}\n{"
                 "\"text\":\"x\"}\n");
  o.builder = &builder_;
  const auto shown = preview(o, 1);
  ASSERT_EQ(shown.size(), 1u);
  EXPECT_EQ(shown[0].text, "<user>q|<assistant>a|");
  ASSERT_EQ(shown[0].learned.size(), 1u);
  EXPECT_EQ(shown[0].text.substr(static_cast<size_t>(shown[0].learned[0].begin)), "a|");
  EXPECT_EQ(shown[0].token_borders.size(), shown[0].text.size());
}

TEST_F(ToolsTest, Convert_between_all_file_formats_keeps_the_rows) {
  const auto input = write("in.jsonl", "{\"q\":\"x, \\\"y\\\"\",\"n\":1}\n{\"q\":\"line\\nbreak\",\"n\":2}\n");
  const auto want = rows(input);
  for (const char* name : {"o.json", "o.jsonl", "o.parquet"}) {
    ConvertOptions o;
    o.input = input;
    o.output = folder_ / "out" / name;
    o.format = file_format_of(o.output);
    EXPECT_EQ(convert(o).written, 2);
    EXPECT_EQ(rows(o.output), want) << name;
  }
  ConvertOptions o;
  o.input = input;
  o.output = folder_ / "o.csv";
  o.format = FileFormat::kCsv;
  convert(o);
  EXPECT_EQ(read_text(o.output), "q,n\n\"x, \"\"y\"\"\",1\n\"line\nbreak\",2\n");
  EXPECT_FALSE(fs::exists(folder_ / "out" / "o.parquet.rows.jsonl"));
}

TEST_F(ToolsTest, Convert_renames_shuffles_and_changes_the_layout) {
  ConvertOptions o;
  o.input = write("in.jsonl", "{\"frage\":\"q\",\"antwort\":\"a\",\"tools\":[],\"id\":7}\n");
  o.output = folder_ / "o.jsonl";
  o.renamed = parse_renames("question=frage,answer=antwort");
  o.layout = Layout::kShareGpt;
  convert(o);
  EXPECT_EQ(
      rows(o.output)[0],
      Json::parse(R"({"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}],"tools":[],"id":7})"));
  o.layout = Layout::kAlpaca;
  convert(o);
  EXPECT_EQ(rows(o.output)[0], Json::parse(R"({"instruction":"q","input":"","output":"a","tools":[],"id":7})"));
  o.renamed = parse_renames("x=nothing");
  EXPECT_THROW(convert(o), Error);
  EXPECT_THROW(parse_renames("broken"), Error);
  ConvertOptions s;
  s.input = write("n.jsonl", numbered(50));
  s.output = folder_ / "s.jsonl";
  s.shuffle = true;
  convert(s);
  EXPECT_NE(texts(s.output), texts(s.input));
  auto a = rows(s.output), b = rows(s.input);
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  EXPECT_EQ(a, b);
}

TEST_F(ToolsTest, Rows_that_are_no_JSON_are_refused_by_place_and_NaN_is_read_as_null) {
  const fs::path bad = write("bad.jsonl", "{\"text\":\"a\"}\nnot json\n");
  const std::function<void()> calls[] = {
      [&] { convert({.input = bad, .output = folder_ / "o.jsonl"}); },
      [&] { merge({.inputs = {bad}, .output = folder_ / "o.jsonl"}); },
      [&] { sample({.input = bad, .output = folder_ / "o.jsonl"}); },
      [&] { split({.input = bad, .output = folder_, .val_ratio = 0.5}); },
  };
  for (const auto& call : calls) {
    try {
      call();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), ::testing::HasSubstr("bad.jsonl:2"));
    }
  }
  EXPECT_FALSE(fs::exists(folder_ / "o.jsonl"));
  const fs::path nan = write("nan.jsonl", "{\"text\":\"a\",\"score\":NaN,\"least\":-Infinity}\n");
  convert({.input = nan, .output = folder_ / "o.jsonl"});
  EXPECT_EQ(read_text(folder_ / "o.jsonl"), "{\"text\":\"a\",\"score\":null,\"least\":null}\n");
  EXPECT_EQ(validate({.path = nan}).valid, 1);
}

TEST_F(ToolsTest, Filter_by_length_pattern_duplicates_and_completeness) {
  FilterOptions o;
  o.input = write(
      "in.jsonl",
      "{\"text\":\"aa\"}\n{\"text\":\"aa\",\"id\":2}\n{\"text\":\"b\"}\n{\"text\":\"cccccc\"}\n{\"text\":\" \"}\n");
  o.output = folder_ / "o.jsonl";
  o.dedup = true;
  EXPECT_EQ(filter(o).removed, (std::map<std::string, int64_t>{{"duplicate", 1}}));
  o.dedup = false;
  o.builder = &builder_;
  o.min_tokens = 3;
  o.max_tokens = 4;
  filter(o);
  EXPECT_EQ(texts(o.output), "aaaa");
  o.min_tokens = o.max_tokens = 0;
  o.pattern = "^[ac]+$";
  filter(o);
  EXPECT_EQ(texts(o.output), "aaaacccccc");
  o.invert = true;
  filter(o);
  EXPECT_EQ(texts(o.output), "b ");
  o.pattern.clear();
  EXPECT_THROW(filter(o), Error);
  o.invert = false;
  o.complete_only = true;
  filter(o);
  EXPECT_EQ(texts(o.output), "aaaabcccccc");
  o.builder = nullptr;
  o.min_tokens = 1;
  EXPECT_THROW(filter(o), Error);
}

TEST_F(ToolsTest, Split_keeps_every_row_once_and_the_shares_of_a_column) {
  SplitOptions o;
  o.input = write("in.jsonl", numbered(200));
  o.output = folder_ / "parts";
  o.val_ratio = 0.1;
  o.test_ratio = 0.2;
  o.stratify = "kind";
  const auto counts = split(o);
  EXPECT_EQ(counts.outputs.at(0).second, 140);
  EXPECT_EQ(counts.outputs.at(1).second, 20);
  EXPECT_EQ(counts.outputs.at(2).second, 40);
  std::set<std::string> seen;
  int64_t b_in_validation = 0;
  for (const auto& [path, n] : counts.outputs)
    for (const auto& r : rows(path)) {
      seen.insert(r["text"]);
      b_in_validation += path.filename() == "validation.jsonl" && r["kind"] == "b";
    }
  EXPECT_EQ(seen.size(), 200u);
  EXPECT_EQ(b_in_validation, 5);  // a tenth of fifty
  const auto first = read_text(o.output / "test.jsonl");
  split(o);
  EXPECT_EQ(read_text(o.output / "test.jsonl"), first);
  o.val_ratio = 0.9;
  EXPECT_THROW(split(o), Error);
}

TEST_F(ToolsTest, Merge_in_turn_by_weight_or_one_after_the_other) {
  MergeOptions o;
  o.inputs = {write("a.jsonl", numbered(3, "a")), write("b.jsonl", numbered(5, "b"))};
  o.output = folder_ / "o.jsonl";
  merge(o);
  EXPECT_EQ(texts(o.output), "a0a1a2b0b1b2b3b4");
  o.interleave = true;
  merge(o);
  EXPECT_EQ(texts(o.output), "a0b0a1b1a2b2b3b4");
  o.weights = {1, 2};
  merge(o);  // ends when b runs out, six rows would be a's third of nine
  EXPECT_EQ(texts(o.output), "b0a0b1b2a1b3b4a2");
  o.weights = {1};
  EXPECT_THROW(merge(o), Error);
}

TEST_F(ToolsTest, Samples_are_distinct_ordered_and_seeded) {
  SampleOptions o;
  o.input = write("in.jsonl", numbered(100));
  o.output = folder_ / "o.jsonl";
  o.n = 10;
  EXPECT_EQ(sample(o).written, 10);
  const auto first = rows(o.output);
  int last = -1;
  for (const auto& r : first) {
    const int i = std::stoi(r["text"].get<std::string>());
    EXPECT_GT(i, last);
    last = i;
  }
  sample(o);
  EXPECT_EQ(rows(o.output), first);
  o.seed = 7;
  sample(o);
  EXPECT_NE(rows(o.output), first);
  o.n = 1000;
  EXPECT_EQ(sample(o).written, 100);
}

const char* const kChat = R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]})";

TEST_F(ToolsTest, Template_renders_text_or_prompt_and_completion) {
  TemplateOptions o;
  o.input = write("in.jsonl", std::string(kChat) + "\n");
  o.output = folder_ / "o.jsonl";
  o.render = chatml();
  o.system = "s";
  apply_template(o);
  EXPECT_EQ(texts(o.output), "<system>s|<user>q|<assistant>a|");
  o.mask_prompt = true;
  apply_template(o);
  EXPECT_EQ(rows(o.output)[0], Json::parse(R"({"prompt":"<system>s|<user>q|<assistant>","completion":"a|"})"));
}

TEST_F(ToolsTest, Prepare_leaves_only_the_parts) {
  std::string text;
  for (int i = 0; i < 20; ++i)
    text += R"({"messages":[{"role":"user","content":"q)" + std::to_string(i / 2) +
            R"("},{"role":"assistant","content":"a"}]})" + "\n";
  PrepareOptions o;
  o.input = write("in.jsonl", text + R"({"messages":[{"role":"user","content":"open"}]})" + "\n");
  o.output = folder_ / "p";
  o.render = chatml();
  o.builder = &builder_;
  o.val_ratio = 0.2;
  const auto counts = prepare(o);
  EXPECT_EQ(counts.read, 21);
  EXPECT_EQ(counts.removed, (std::map<std::string, int64_t>{{"duplicate", 10}, {"incomplete", 1}}));
  EXPECT_EQ(counts.outputs.at(0).second, 8);
  EXPECT_EQ(counts.outputs.at(1).second, 2);
  size_t files = 0;
  for ([[maybe_unused]] const auto& f : fs::directory_iterator(o.output)) ++files;
  EXPECT_EQ(files, 2u);
}

}  // namespace
}  // namespace pmetal::data
