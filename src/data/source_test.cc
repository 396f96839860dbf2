// Sources: every accepted file kind gives the same rows; broken files are named by file, line and field.
#include "data/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing.h"
#include "formats/block_codec.h"
#include "formats/compression.h"

namespace pmetal::data {
namespace {

class SourceTest : public ::testing::Test {
 protected:
  void SetUp() override { folder_ = pmetal::testing_support::scratch_dir("source"); }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    write_file_atomic(folder_ / name, text);
    return folder_ / name;
  }
  static std::vector<std::string> all(Source& source) {
    std::vector<std::string> out;
    Row row;
    while (source.next(row)) out.push_back(row.json);
    return out;
  }
  std::vector<std::string> read(const fs::path& path) { return all(*open_source(path)); }
  static std::string message(const std::function<void()>& body) {
    try {
      body();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
  fs::path folder_;
};

const char* const kLines = "{\"text\":\"a\"}\n\n{\"text\":\"b\"}\r\n{\"text\":\"c\"}";
const std::vector<std::string> kRows = {"{\"text\":\"a\"}", "{\"text\":\"b\"}", "{\"text\":\"c\"}"};

TEST_F(SourceTest, Json_lines_plain_and_compressed_give_the_same_rows) {
  EXPECT_EQ(read(write("a.jsonl", kLines)), kRows);
  using formats::BlockCodec;
  EXPECT_EQ(read(write("a.jsonl.gz", formats::compress_block(BlockCodec::kGzip, kLines))), kRows);
  EXPECT_EQ(read(write("a.jsonl.zst", formats::compress_block(BlockCodec::kZstd, kLines))), kRows);
  // several members, several frames
  const std::string half = "{\"text\":\"a\"}\n";
  EXPECT_EQ(read(write("b.jsonl.gz", formats::compress_block(BlockCodec::kGzip, half) +
                                         formats::compress_block(BlockCodec::kGzip, half)))
                .size(),
            2u);
  EXPECT_EQ(read(write("b.jsonl.zst", formats::compress_block(BlockCodec::kZstd, half) +
                                          formats::compress_block(BlockCodec::kZstd, half)))
                .size(),
            2u);
}

TEST_F(SourceTest, A_cut_compressed_file_is_an_error_and_not_an_end) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "{\"text\":\"" + std::to_string(i * 7919) + "\"}\n";
  for (auto codec : {formats::BlockCodec::kGzip, formats::BlockCodec::kZstd}) {
    std::string packed = formats::compress_block(codec, text);
    packed.resize(packed.size() - 9);
    const auto path = write(codec == formats::BlockCodec::kGzip ? "c.jsonl.gz" : "c.jsonl.zst", packed);
    EXPECT_THAT(message([&] { read(path); }), ::testing::HasSubstr("cut short"));
  }
}

TEST_F(SourceTest, Rows_know_their_line_also_after_blank_lines) {
  const auto source = open_source(write("a.jsonl", kLines));
  Row row;
  std::vector<int64_t> lines;
  while (source->next(row)) lines.push_back(row.line);
  EXPECT_EQ(lines, (std::vector<int64_t>{1, 3, 4}));
  EXPECT_THAT(row.where(), ::testing::EndsWith("a.jsonl:4"));
}

TEST_F(SourceTest, Skip_lands_on_the_same_row_across_files) {
  write("d/train-0.jsonl", "{\"text\":\"0\"}\n\n{\"text\":\"1\"}\n");
  write("d/train-1.jsonl", "{\"text\":\"2\"}\n{\"text\":\"3\"}\n");
  for (int64_t n = 0; n <= 5; ++n) {
    const auto source = open_source(folder_ / "d");
    EXPECT_EQ(source->skip(n), std::min<int64_t>(n, 4));
    Row row;
    EXPECT_EQ(source->next(row), n < 4);
    if (n < 4) {
      EXPECT_EQ(row.json, "{\"text\":\"" + std::to_string(n) + "\"}");
    }
  }
}

TEST_F(SourceTest, Json_arrays_and_pretty_printed_objects_are_cut_into_records) {
  const std::vector<std::string> rows = {"{\"a\": \"]},{\\\"\"}", "{\"b\": [1, {\"c\": 2}]}"};
  EXPECT_EQ(read(write("a.json", " [" + rows[0] + " ,\n" + rows[1] + "\n]\n")), rows);
  EXPECT_EQ(read(write("b.json", rows[0] + "\n\n" + rows[1])), rows);
  EXPECT_TRUE(read(write("c.json", "[]")).empty());
  EXPECT_THAT(message([&] { read(write("d.json", "[{\"a\":1},\n{\"b\":2}")); }), ::testing::HasSubstr("d.json:2"));
  EXPECT_THAT(message([&] { read(write("e.json", "[1, 2]")); }), ::testing::HasSubstr("must be an object"));
  EXPECT_THAT(message([&] { read(write("f.json", "[{}] x")); }), ::testing::HasSubstr("follows the closing"));
}

TEST_F(SourceTest, Csv_follows_rfc_4180) {
  EXPECT_EQ(read(write("a.csv", "\xef\xbb\xbfq,a\r\n\"x, \"\"y\"\"\",\"two\nlines\"\r\n,z\r\n")),
            (std::vector<std::string>{R"({"q":"x, \"y\"","a":"two\nlines"})", R"({"q":"","a":"z"})"}));
  EXPECT_EQ(read(write("a.tsv", "q\ta\n1\t2,3\n")), (std::vector<std::string>{R"({"q":"1","a":"2,3"})"}));
  EXPECT_EQ(read(write("f.csv", "\"q;,\";a\n1,5;2\n")), (std::vector<std::string>{R"({"q;,":"1,5","a":"2"})"}));
  EXPECT_EQ(read(write("g.csv", "q\ta\r\n1;x\t2\r\n")), (std::vector<std::string>{R"({"q":"1;x","a":"2"})"}));
  EXPECT_EQ(read(write("h.csv", "q;r,a\n1;x,2\n")), (std::vector<std::string>{R"({"q;r":"1;x","a":"2"})"}));
  EXPECT_THAT(message([&] { read(write("i.csv", "\nq,a,q\n")); }), ::testing::HasSubstr("i.csv:2: the header names"));
  EXPECT_THAT(message([&] { read(write("b.csv", "q,a\n1,2,3\n")); }), ::testing::HasSubstr("b.csv:2: 3 fields"));
  EXPECT_THAT(message([&] { read(write("c.csv", "q\n\"open\n")); }), ::testing::HasSubstr("never closed"));
  EXPECT_THAT(message([&] { read(write("d.csv", "q\n\"a\"b\n")); }), ::testing::HasSubstr("d.csv:2"));
  EXPECT_THAT(message([&] { read(write("e.csv", "q,r\n1,\"\xff\"\n")); }), ::testing::HasSubstr("field \"r\""));
}

TEST_F(SourceTest, Text_files_are_cut_at_the_separator_line) {
  EXPECT_EQ(read(write("a.txt", "one\ntwo\n<|endoftext|>\n\n<|endoftext|>\nthree <|endoftext|>\n")),
            (std::vector<std::string>{R"({"text":"one\ntwo"})", R"({"text":"three <|endoftext|>"})"}));
}

TEST_F(SourceTest, Folders_take_stems_and_extensions_in_the_order_of_the_surface) {
  const auto names = [&](const std::string& folder, const std::string& split = "train") {
    std::vector<std::string> out;
    for (const auto& f : resolve_files(folder_ / folder, split)) out.push_back(fs::relative(f, folder_).string());
    return out;
  };
  write("a/other.jsonl", "");
  write("a/data.csv", "");
  write("a/train-00001-of-00002.json", "");
  write("a/train-00000-of-00002.json.gz", "");
  write("a/train.parquet", "");
  write("a/dataset_info.json", "");
  EXPECT_EQ(names("a"), (std::vector<std::string>{"a/train-00000-of-00002.json.gz", "a/train-00001-of-00002.json"}));
  write("b/data/train-0.jsonl", "");
  write("b/data/validation-0.jsonl", "");
  write("b/README.md", "");
  EXPECT_EQ(names("b"), (std::vector<std::string>{"b/data/train-0.jsonl"}));
  EXPECT_EQ(names("b", "validation"), (std::vector<std::string>{"b/data/validation-0.jsonl"}));
  write("c/strange.csv", "");
  EXPECT_EQ(names("c"), (std::vector<std::string>{"c/strange.csv"}));
  EXPECT_THAT(message([&] { names("c", "test"); }), ::testing::HasSubstr("no file of the split \"test\""));
  EXPECT_THAT(message([&] { names("none"); }), ::testing::HasSubstr("no such file"));
}

TEST_F(SourceTest, Unknown_kinds_and_arrow_say_what_to_use) {
  EXPECT_THAT(message([&] { read(write("a.bin", "x")); }), ::testing::HasSubstr(".jsonl"));
  EXPECT_THAT(message([&] { read(write("a.arrow", "x")); }), ::testing::HasSubstr("Parquet"));
}

TEST_F(SourceTest, Fingerprints_follow_names_sizes_and_contents) {
  const auto a = write("a.jsonl", "{}\n");
  const auto first = fingerprint({a});
  EXPECT_EQ(first, fingerprint({a}));
  write("a.jsonl", "[]\n");
  EXPECT_NE(first, fingerprint({a}));
}

TEST_F(SourceTest, A_long_stream_is_read_in_constant_memory) {
  // 64 MiB of rows through a buffer that stays below a few hundred KiB
  std::string block;
  for (int i = 0; i < 1000; ++i) block += "{\"text\":\"" + std::string(1000, 'x') + "\"}\n";
  struct Endless final : formats::InputStream {
    explicit Endless(const std::string& b) : block(b) {}
    size_t read(char* to, size_t capacity) override {
      const size_t n = std::min({capacity, block.size() - at, left});
      block.copy(to, n, at);
      at = (at + n) % block.size();
      left -= n;
      largest = std::max(largest, capacity);
      return n;
    }
    const std::string& block;
    size_t at = 0, left = size_t{64} << 20, largest = 0;
  };
  auto endless = std::make_unique<Endless>(block);
  Endless& stream = *endless;
  formats::LineReader lines(std::move(endless), "endless");
  std::string_view line;
  int64_t n = 0;
  while (lines.next(line)) ++n;
  EXPECT_EQ(n, (int64_t{64} << 20) / 1012 + 1);
  EXPECT_LE(stream.largest, size_t{1} << 19);
}

}  // namespace
}  // namespace pmetal::data
