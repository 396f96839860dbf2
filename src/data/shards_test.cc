// Token shards: bytes on disk, order kept by parallel writing, resume after a stop, reading at every length.
#include "data/shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/testing.h"
#include "data/test_support.h"

namespace pmetal::data {
namespace {

class ShardsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = pmetal::testing_support::scratch_dir("shards");
    std::string text;
    for (int i = 0; i < 37; ++i) {
      documents_.push_back("doc" + std::to_string(i * 31) + std::string(static_cast<size_t>(i % 6), '.'));
      text += "{\"text\":\"" + documents_.back() + "\"}\n";
      if (i % 10 == 4) text += "{broken\n";
    }
    write_file_atomic(folder_ / "in.jsonl", text);
    options_.inputs = {folder_ / "in.jsonl"};
    options_.output = folder_ / "out";
    options_.documents_per_shard = 10;
    options_.vocab_size = 300;
    options_.tokenizer_hash = "h";
  }
  void TearDown() override { fs::remove_all(folder_); }
  ShardIndex write(const ShardProgress& progress = nullptr) {
    return write_shards(options_, testing_support::byte_encoder(), pool_, progress);
  }
  std::unique_ptr<Loader> open(int64_t length, int64_t epochs = 1, bool shuffle = true, bool across = false) {
    ShardLoaderOptions o;
    o.loader.max_length = length;
    o.loader.epochs = epochs;
    o.loader.shuffle = shuffle;
    o.attend_across_documents = across;
    return make_shard_loader(resolve_shards((folder_ / "out").string()), o);
  }
  static std::vector<PackedSequence> drain(Loader& loader, size_t limit = 100000) {
    std::vector<PackedSequence> out;
    PackedSequence s;
    while (out.size() < limit && loader.next(s)) out.push_back(s);
    return out;
  }
  std::map<std::string, std::string> files() {
    std::map<std::string, std::string> out;
    for (const auto& e : fs::directory_iterator(folder_ / "out"))
      out[e.path().filename().string()] = read_text(e.path());
    return out;
  }
  // what the shards say, shard by shard, '$' for the end token
  std::string stream(size_t begin, size_t end) {
    std::string out;
    for (size_t i = begin; i < end; ++i) out += documents_[i] + "$";
    return out;
  }
  fs::path folder_;
  std::vector<std::string> documents_;
  TokenizeOptions options_;
  ThreadPool pool_{2};
};

TEST_F(ShardsTest, The_bytes_are_lengths_and_tokens_in_the_order_of_the_input) {
  const auto index = write();
  EXPECT_EQ(index.documents, 37);
  EXPECT_EQ(index.skipped, 4);
  EXPECT_TRUE(index.is_complete);
  ASSERT_EQ(index.shards.size(), 4u);
  std::string expected;
  for (size_t d = 0; d < 10; ++d) {
    const auto put = [&](uint32_t v) { expected.append(reinterpret_cast<const char*>(&v), 4); };
    put(static_cast<uint32_t>(documents_[d].size()));
    for (char c : documents_[d]) put(static_cast<uint8_t>(c) + 3u);
  }
  EXPECT_EQ(read_text(folder_ / "out" / "shard_00000.bin"), expected);
  EXPECT_EQ(read_shard_index(folder_ / "out")->tokens, index.tokens);
  EXPECT_EQ(index.text_bytes, index.tokens);  // one id per byte
}

TEST_F(ShardsTest, A_stopped_run_is_resumed_and_ends_with_the_same_bytes) {
  write();
  const auto whole = files();
  for (int stop_after = 1; stop_after <= 4; ++stop_after) {
    fs::remove_all(folder_ / "out");
    int n = 0;
    write([&](const ShardIndex&) { return ++n < stop_after; });
    EXPECT_FALSE(read_shard_index(folder_ / "out")->is_complete);
    int resumed = 0;
    write([&](const ShardIndex&) { return ++resumed > 0; });
    EXPECT_EQ(resumed, 4 - stop_after);
    EXPECT_EQ(files(), whole);
  }
  write_file_atomic(folder_ / "in.jsonl", "{\"text\":\"other\"}\n");
  EXPECT_THROW(write(), Error);
  options_.overwrite = true;
  EXPECT_EQ(write().documents, 1);
}

TEST_F(ShardsTest, Unshuffled_sequences_joined_are_the_stream_at_every_length) {
  write();
  for (int64_t length : {2, 3, 7, 16, 1000}) {
    std::string text;
    for (const auto& s : drain(*open(length, 1, false))) {
      EXPECT_LE(s.length(), length);
      text += testing_support::text_of(s.ids);
    }
    std::string expected;
    for (size_t begin = 0; begin < 37; begin += 10) {
      std::string part = stream(begin, std::min<size_t>(begin + 10, 37));
      if (static_cast<int64_t>(part.size()) % length == 1) part.pop_back();  // a single token is left out
      expected += part;
    }
    EXPECT_EQ(text, expected) << length;
  }
}

TEST_F(ShardsTest, Documents_do_not_see_each_other_unless_asked) {
  write();
  const auto apart = drain(*open(1000, 1, false))[0], across = drain(*open(1000, 1, false, true))[0];
  EXPECT_EQ(apart.n_documents(), 10);
  EXPECT_EQ(apart.cu_seqlens[1], static_cast<int32_t>(documents_[0].size()) + 1);
  EXPECT_EQ(apart.labels[static_cast<size_t>(apart.cu_seqlens[1])], kIgnore);
  EXPECT_EQ(apart.positions[static_cast<size_t>(apart.cu_seqlens[1])], 0);
  EXPECT_EQ(across.n_documents(), 1);
  EXPECT_EQ(across.ids, apart.ids);
  EXPECT_EQ(across.n_learned(), across.length() - 1);
}

TEST_F(ShardsTest, Epochs_wrap_around_in_new_orders_and_resume_exactly) {
  write();
  const auto ids = [](const std::vector<PackedSequence>& v) {
    std::vector<std::vector<int32_t>> out;
    for (const auto& s : v) out.push_back(s.ids);
    return out;
  };
  const auto all = ids(drain(*open(16, 3)));
  const auto n = static_cast<size_t>(*open(16)->sequences_per_epoch());
  ASSERT_EQ(all.size(), 3 * n);
  auto a = std::vector(all.begin(), all.begin() + static_cast<int64_t>(n));
  auto b = std::vector(all.begin() + static_cast<int64_t>(n), all.begin() + static_cast<int64_t>(2 * n));
  EXPECT_NE(a, b);
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  EXPECT_EQ(a, b);
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    auto first = open(16, 3);
    drain(*first, cut);
    auto second = open(16, 3);
    second->restore(first->state());
    EXPECT_EQ(ids(drain(*second)), std::vector(all.begin() + static_cast<int64_t>(cut), all.end()));
  }
  EXPECT_THROW(open(17)->restore(open(16)->state()), Error);
}

TEST_F(ShardsTest, Globs_lists_and_folders_name_shards) {
  write();
  const auto out = (folder_ / "out").string();
  EXPECT_EQ(resolve_shards(out).size(), 4u);
  EXPECT_EQ(resolve_shards(out + "/shard_0000[12].bin," + out + "/shard_00000.bin").size(), 3u);
  EXPECT_EQ(resolve_shards(out + "/*.bin," + out).size(), 4u);
  EXPECT_THROW(resolve_shards(out + "/nothing*"), Error);
  EXPECT_THROW(resolve_shards(folder_.string()), Error);
}

TEST_F(ShardsTest, Damaged_shards_and_foreign_tokens_are_named) {
  write();
  const auto path = folder_ / "out" / "shard_00000.bin";
  std::string bytes = read_text(path);
  std::string foreign = bytes;
  foreign[4 + 1] = 7;  // second byte of the first token: 7 * 256 + ...
  write_file_atomic(path, foreign);
  const auto message = [&] {
    try {
      drain(*open(16));
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message(), ::testing::AllOf(::testing::HasSubstr("shard_00000.bin"), ::testing::HasSubstr("at byte 4")));
  bytes.pop_back();
  write_file_atomic(path, bytes);
  EXPECT_THAT(message(), ::testing::HasSubstr("damaged"));
  fs::remove(folder_ / "out" / "index.json");
  EXPECT_THAT(message(), ::testing::HasSubstr("cut short"));
}

TEST_F(ShardsTest, Ranks_split_an_epoch) {
  write();
  const auto all = drain(*open(16));
  for (int rank = 0; rank < 3; ++rank) {
    ShardLoaderOptions o;
    o.loader.max_length = 16;
    o.loader.rank = rank;
    o.loader.world = 3;
    const auto mine = drain(*make_shard_loader(resolve_shards((folder_ / "out").string()), o));
    EXPECT_EQ(mine.size(), (all.size() + 2) / 3);
    for (size_t i = 0; i < mine.size() && i * 3 + static_cast<size_t>(rank) < all.size(); ++i)
      EXPECT_EQ(mine[i].ids, all[i * 3 + static_cast<size_t>(rank)].ids);
  }
}

}  // namespace
}  // namespace pmetal::data
