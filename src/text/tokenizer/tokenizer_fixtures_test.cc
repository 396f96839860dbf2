// Every case of the reference fixtures: ids, offsets and decoded texts as the published libraries gave them. A subset
// travels in tests/data/tokenizers; the whole set lies beside a development checkout.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::vector<fs::path> fixture_dirs() {
  std::vector<fs::path> roots{testing_support::data_dir() / "tokenizers"}, dirs;
  if (const fs::path shared = testing_support::shared_dir(); !shared.empty())
    roots.push_back(shared / "fixtures" / "tokenizers");
  for (const auto& root : roots)
    for (const auto& entry : fs::directory_iterator(root))
      if (entry.is_directory()) dirs.push_back(entry.path());
  return dirs;
}

template <class F>
size_t for_each_line(const fs::path& path, F f) {
  std::ifstream in(path);
  size_t n = 0;
  for (std::string line; std::getline(in, line); ++n) f(json::parse(line));
  return n;
}

std::vector<Offset> to_offsets(const json& list) {
  std::vector<Offset> out;
  for (const auto& o : list) out.push_back({o[0].get<uint32_t>(), o[1].get<uint32_t>()});
  return out;
}

std::string offsets_text(const std::vector<Offset>& offsets) {
  std::string s;
  for (const Offset& o : offsets) s += "[" + std::to_string(o.begin) + "," + std::to_string(o.end) + "]";
  return s;
}

std::string stream(const Tokenizer& t, const std::vector<int32_t>& ids, bool skip_special) {
  StreamingDecoder decoder(t, skip_special);
  std::string out;
  for (int32_t id : ids) out += decoder.push(id);
  return out + decoder.flush();
}

void check_case(const Tokenizer& t, const json& c) {
  EncodeOptions options;
  options.with_offsets = true;
  std::string pair;
  if (c.contains("pair")) options.pair = pair = c["pair"].get<std::string>();
  const auto text = c["text"].get<std::string>();
  const Encoding e = t.encode(text, options);
  ASSERT_EQ(e.ids, c["ids"].get<std::vector<int32_t>>()) << c;
  if (c.contains("offsets")) {
    ASSERT_EQ(offsets_text(e.offsets), offsets_text(to_offsets(c["offsets"]))) << c;
  }
  if (c.contains("type_ids")) {
    ASSERT_EQ(e.type_ids, c["type_ids"].get<std::vector<int32_t>>()) << c;
  }
  options.with_offsets = false;
  ASSERT_EQ(t.encode(text, options).ids, e.ids) << "without offsets: " << c;
  if (c.contains("ids_plain")) {
    const auto plain = t.encode_ids(text, false);
    if (!options.pair) {
      ASSERT_EQ(plain, c["ids_plain"].get<std::vector<int32_t>>()) << c;
    }
    if (c.contains("decode_plain")) {
      const auto ids = c["ids_plain"].get<std::vector<int32_t>>();
      ASSERT_EQ(t.decode(ids, false), c["decode_plain"].get<std::string>()) << c;
    }
  }
  for (const bool skip : {false, true}) {
    const char* key = skip ? "decode_skip" : "decode";
    if (!c.contains(key)) continue;
    ASSERT_EQ(t.decode(e.ids, skip), c[key].get<std::string>()) << c;
    ASSERT_EQ(stream(t, e.ids, skip), c[key].get<std::string>()) << "token by token: " << c;
  }
}

void check_batch(const Tokenizer& t, const json& c) {
  EncodeOptions options;
  options.with_offsets = true;
  const auto encodings = t.encode_batch(c["batch"].get<std::vector<std::string>>(), options);
  for (size_t i = 0; i < encodings.size(); ++i) {
    const Encoding& e = encodings[i];
    ASSERT_EQ(e.ids, c["ids"][i].get<std::vector<int32_t>>()) << c["batch"][i];
    ASSERT_EQ(std::vector<int>(e.attention_mask.begin(), e.attention_mask.end()), c["mask"][i].get<std::vector<int>>());
    ASSERT_EQ(std::vector<int>(e.special_mask.begin(), e.special_mask.end()), c["special"][i].get<std::vector<int>>());
    ASSERT_EQ(e.offsets, to_offsets(c["offsets"][i]));
    std::vector<std::vector<int32_t>> overflow;
    for (const Encoding& o : e.overflow) overflow.push_back(o.ids);
    ASSERT_EQ(overflow, c["overflow"][i].get<std::vector<std::vector<int32_t>>>()) << c["batch"][i];
  }
}

TEST(TokenizerFixtures, Every_case_of_tokenizer_json_is_equal) {
  size_t n = 0;
  for (const fs::path& dir : fixture_dirs()) {
    SCOPED_TRACE(dir.string());
    if (!fs::exists(dir / "tokenizer.json") || !fs::exists(dir / "cases.jsonl")) continue;
    const auto t = Tokenizer::from_dir(dir);
    size_t failures = 0;
    n += for_each_line(dir / "cases.jsonl", [&](const json& c) {
      if (failures >= 3) return;
      c.contains("batch") ? check_batch(*t, c) : check_case(*t, c);
      failures += testing::Test::HasFatalFailure();
    });
  }
  RecordProperty("cases", static_cast<int>(n));
  EXPECT_GE(n, 100u);
}

TEST(TokenizerFixtures, SentencePiece_models_give_the_ids_of_the_sentencepiece_library) {
  size_t n = 0;
  for (const fs::path& dir : fixture_dirs()) {
    SCOPED_TRACE(dir.string());
    if (!fs::exists(dir / "tokenizer.model")) continue;
    const auto t = Tokenizer::from_file(dir / "tokenizer.model");
    const fs::path cases = fs::exists(dir / "cases_model.jsonl") ? dir / "cases_model.jsonl" : dir / "cases.jsonl";
    n += for_each_line(cases, [&](const json& c) {
      const auto ids = t->encode_ids(c["text"].get<std::string>(), false);
      ASSERT_EQ(ids, c["ids"].get<std::vector<int32_t>>()) << c;
      if (!c.contains("decode")) return;
      ASSERT_EQ(t->decode(ids, false), c["decode"].get<std::string>()) << c;
      ASSERT_EQ(stream(*t, ids, false), c["decode"].get<std::string>()) << c;
    });
  }
  EXPECT_GE(n, 100u);
}

TEST(TokenizerFixtures, Tiktoken_ids_are_equal_where_no_normalizer_runs) {
  for (const fs::path& dir : fixture_dirs()) {
    SCOPED_TRACE(dir.string());
    if (!fs::exists(dir / "cases_tiktoken.jsonl")) continue;
    std::ifstream in(dir / "tokenizer.json");
    json file = json::parse(in);
    file["normalizer"] = nullptr;
    const auto t = Tokenizer::from_json(file.dump(), "tokenizer.json without normalizer");
    for_each_line(dir / "cases_tiktoken.jsonl", [&](const json& c) {
      ASSERT_EQ(t->encode_ids(c["text"].get<std::string>(), false), c["ids"].get<std::vector<int32_t>>()) << c;
    });
  }
}

}  // namespace
}  // namespace pmetal::text
