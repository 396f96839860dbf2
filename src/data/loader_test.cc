// Loaders: every document once per epoch, the same order from the same seed, and a resumed loader that continues with
// the very next sequence.
#include "data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/rng.h"
#include "base/testing.h"
#include "data/test_support.h"

namespace pmetal::data {
namespace {

std::vector<Example> documents(int64_t n, int64_t longest = 12) {
  PhiloxStream random(9, RngPurpose::kSynthetic);
  std::vector<Example> out;
  for (int64_t i = 0; i < n; ++i) {
    std::vector<int32_t> ids(2 + random.below(static_cast<uint64_t>(longest - 1)), static_cast<int32_t>(i));
    out.push_back({ids, ids});
  }
  return out;
}
LoaderOptions options_of(bool pack, int64_t epochs = 3) {
  LoaderOptions o;
  o.pack = pack;
  o.epochs = epochs;
  o.max_length = 16;
  return o;
}
std::vector<std::vector<int32_t>> drain(Loader& loader, int64_t limit = 1 << 20) {
  std::vector<std::vector<int32_t>> out;
  PackedSequence s;
  while (static_cast<int64_t>(out.size()) < limit && loader.next(s)) out.push_back(s.ids);
  return out;
}

TEST(Loader, Every_document_comes_once_per_epoch_in_another_order) {
  for (bool pack : {true, false}) {
    auto loader = make_loader(documents(101), "f", options_of(pack));
    const auto n = static_cast<size_t>(*loader->sequences_per_epoch());
    const auto all = drain(*loader);
    ASSERT_EQ(all.size(), 3 * n);
    for (int e = 0; e < 3; ++e) {
      std::map<int32_t, int64_t> tokens;
      for (size_t i = 0; i < n; ++i)
        for (int32_t id : all[e * n + i]) ++tokens[id];
      const auto expected = documents(101);
      ASSERT_EQ(tokens.size(), expected.size());
      for (const auto& d : expected) EXPECT_EQ(tokens[d.ids[0]], d.length());
    }
    EXPECT_FALSE(std::equal(all.begin(), all.begin() + n, all.begin() + n));
    EXPECT_EQ(all, drain(*make_loader(documents(101), "f", options_of(pack))));
    auto other = options_of(pack);
    other.seed = 43;
    EXPECT_NE(all, drain(*make_loader(documents(101), "f", other)));
  }
}

TEST(Loader, Without_shuffling_the_order_is_that_of_the_data) {
  auto o = options_of(false, 1);
  o.shuffle = false;
  const auto all = drain(*make_loader(documents(20), "f", o));
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i][0], static_cast<int32_t>(i));
}

TEST(Loader, A_restored_loader_continues_with_the_very_next_sequence) {
  for (bool pack : {true, false}) {
    const auto all = drain(*make_loader(documents(57), "f", options_of(pack)));
    for (size_t cut = 0; cut <= all.size(); ++cut) {
      auto first = make_loader(documents(57), "f", options_of(pack));
      drain(*first, static_cast<int64_t>(cut));
      const auto state = first->state();
      auto second = make_loader(documents(57), "f", options_of(pack));
      drain(*second, 5);  // its own position must not matter
      second->restore(state);
      EXPECT_EQ(second->state(), state);
      const auto rest = drain(*second);
      ASSERT_EQ(rest.size(), all.size() - cut);
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), all.begin() + static_cast<int64_t>(cut)));
    }
  }
}

TEST(Loader, Another_seed_or_other_data_is_refused_unless_forced) {
  auto loader = make_loader(documents(10), "f", options_of(true));
  const auto state = loader->state();
  const auto message = [&](std::unique_ptr<Loader> other) -> std::string {
    try {
      other->restore(state);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  auto o = options_of(true);
  o.seed = 1;
  EXPECT_THAT(message(make_loader(documents(10), "f", o)),
              ::testing::HasSubstr("\"seed\" is 42 in the checkpoint and 1 now"));
  EXPECT_THAT(message(make_loader(documents(10), "g", options_of(true))), ::testing::HasSubstr("\"data\""));
  EXPECT_NO_THROW(make_loader(documents(10), "g", options_of(true))->restore(state, true));
  EXPECT_THROW(make_loader(documents(10), "f", options_of(true))->restore("{"), Error);
}

TEST(Loader, Ranks_share_an_epoch_and_take_the_same_number_of_steps) {
  auto o = options_of(true, 1);
  const auto all = drain(*make_loader(documents(57), "f", o));
  o.world = 3;
  std::vector<std::vector<PackedSequence>> ranks(3);
  for (o.rank = 0; o.rank < 3; ++o.rank) {
    auto loader = make_loader(documents(57), "f", o);
    PackedSequence s;
    while (loader->next(s)) ranks[static_cast<size_t>(o.rank)].push_back(s);
    EXPECT_EQ(static_cast<int64_t>(ranks[static_cast<size_t>(o.rank)].size()), *loader->sequences_per_epoch());
  }
  for (size_t i = 0; i < 3 * ranks[0].size(); ++i) {
    const auto& s = ranks[i % 3].at(i / 3);
    if (i < all.size()) {
      EXPECT_EQ(s.ids, all[i]);
    } else {
      EXPECT_EQ(s.n_learned(), 0);
    }
  }
}

TEST(Loader, Nothing_to_learn_from_is_an_error) {
  EXPECT_THROW(make_loader({}, "f", options_of(true)), Error);
  auto o = options_of(true);
  o.max_length = 1;
  EXPECT_THROW(make_loader(documents(3), "f", o), Error);
}

class StreamLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = pmetal::testing_support::scratch_dir("loader");
    PhiloxStream random(3, RngPurpose::kSynthetic);
    for (int file = 0; file < 2; ++file) {
      std::string text;
      for (int i = 0; i < 150; ++i)
        text += "{\"text\":\"" + std::string(1 + random.below(14), static_cast<char>('a' + random.below(26))) +
                std::to_string(file * 150 + i) + "\"}\n";
      files_.push_back(folder_ / fmt::format("train-{}.jsonl", file));
      write_file_atomic(files_.back(), text);
    }
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::unique_ptr<Loader> open(bool pack, int64_t epochs = 2, ThreadPool* pool = nullptr) {
    StreamInput input;
    input.files = files_;
    input.builder = std::make_shared<ExampleBuilder>(testing_support::byte_encoder(), nullptr, ExampleOptions{});
    input.window_rows = 64;
    auto o = options_of(pack, epochs);
    o.max_length = 40;
    return make_stream_loader(std::move(input), o, pool);
  }
  fs::path folder_;
  std::vector<fs::path> files_;
};

TEST_F(StreamLoaderTest, Streams_every_row_once_per_epoch_shuffled_within_windows) {
  auto loader = open(false);
  const auto all = drain(*loader);
  ASSERT_EQ(all.size(), 600u);
  const std::set<std::vector<int32_t>> first(all.begin(), all.begin() + 300), second(all.begin() + 300, all.end());
  EXPECT_EQ(first.size(), 300u);
  EXPECT_EQ(first, second);
  EXPECT_FALSE(std::equal(all.begin(), all.begin() + 300, all.begin() + 300));
  EXPECT_EQ(loader->epoch(), 2);
}

TEST_F(StreamLoaderTest, A_restored_stream_continues_with_the_very_next_sequence) {
  ThreadPool pool(2);
  for (bool pack : {true, false}) {
    const auto all = drain(*open(pack));
    for (size_t cut = 0; cut <= all.size(); cut += 7) {
      auto first = open(pack);
      drain(*first, static_cast<int64_t>(cut));
      auto second = open(pack, 2, &pool);
      second->restore(first->state());
      EXPECT_EQ(second->state(), first->state());
      const auto rest = drain(*second);
      ASSERT_EQ(rest.size(), all.size() - cut);
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), all.begin() + static_cast<int64_t>(cut)));
    }
  }
}

TEST(Mixture, Shares_stay_within_one_sequence_of_the_weights) {
  const auto part = [](int32_t id, int64_t n) {
    std::vector<Example> docs(static_cast<size_t>(n), Example{{id, id}, {id, id}});
    return make_loader(std::move(docs), std::to_string(id), options_of(false, 0));
  };
  const auto make = [&] {
    std::vector<MixturePart> parts;
    parts.push_back({part(0, 10), 5});
    parts.push_back({part(1, 70), 3});
    parts.push_back({part(2, 20), 2});
    return make_mixture(std::move(parts), 2);
  };
  auto mixture = make();
  EXPECT_EQ(mixture->sequences_per_epoch(), 100);
  const auto all = drain(*mixture);
  ASSERT_EQ(all.size(), 200u);
  const double weights[] = {0.5, 0.3, 0.2};
  int64_t counts[3] = {};
  for (size_t n = 0; n < all.size(); ++n) {
    ++counts[all[n][0]];
    for (int k = 0; k < 3; ++k)
      EXPECT_LT(std::abs(static_cast<double>(counts[k]) - static_cast<double>(n + 1) * weights[k]), 1.0);
  }
  auto first = make();
  drain(*first, 33);
  auto second = make();
  second->restore(first->state());
  const auto rest = drain(*second);
  EXPECT_TRUE(std::equal(rest.begin(), rest.end(), all.begin() + 33, all.end()));
}

TEST(Loader, Reading_on_a_pool_keeps_the_order) {
  const auto folder = pmetal::testing_support::scratch_dir("read");
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "{\"text\":\"" + std::to_string(i) + "\"}\n";
  write_file_atomic(folder / "a.jsonl", text);
  const ExampleBuilder builder(testing_support::byte_encoder(), nullptr, {});
  ThreadPool pool(3);
  const auto examples = read_examples(*open_source(folder / "a.jsonl"), {}, builder, &pool, 2500);
  ASSERT_EQ(examples.size(), 2500u);
  for (size_t i = 0; i < examples.size(); ++i)
    ASSERT_EQ(testing_support::text_of(examples[i].ids), std::to_string(i) + "$");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace pmetal::data
