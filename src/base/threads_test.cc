#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "base/error.h"

namespace pmetal {

TEST(Threads, Run_calls_every_worker_once) {
  for (int n = 1; n <= 5; ++n) {
    ThreadPool pool(n);
    ASSERT_EQ(pool.size(), n);
    for (int round = 0; round < 200; ++round) {
      std::vector<int> hits(static_cast<size_t>(n));  // not atomic: workers touch only their own, run() orders the rest
      pool.run([&](int worker) { ++hits[static_cast<size_t>(worker)]; });
      ASSERT_EQ(hits, std::vector<int>(static_cast<size_t>(n), 1));
    }
  }
}

TEST(Threads, Parallel_for_visits_every_index_once_in_whole_grains) {
  std::mt19937 random(1);
  ThreadPool pool(3);
  for (int round = 0; round < 300; ++round) {
    const auto n = static_cast<int64_t>(random() % 2000);
    const auto grain = static_cast<int64_t>(random() % 70);  // 0 counts as 1
    std::vector<char> hits(static_cast<size_t>(n));
    std::atomic<int> n_bad_borders{0};
    pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
      const int64_t unit = std::max<int64_t>(grain, 1);
      if (begin % unit != 0 || (end % unit != 0 && end != n) || begin >= end) ++n_bad_borders;
      for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
    });
    ASSERT_EQ(std::accumulate(hits.begin(), hits.end(), int64_t{0}), n) << "n " << n << " grain " << grain;
    ASSERT_TRUE(std::all_of(hits.begin(), hits.end(), [](char h) { return h == 1; }));
    ASSERT_EQ(n_bad_borders.load(), 0) << "n " << n << " grain " << grain;
  }
}

TEST(Threads, An_error_comes_back_after_all_have_ended_and_the_pool_goes_on) {
  ThreadPool pool(4);
  for (int bad = 0; bad < 4; ++bad) {
    std::atomic<int> n_calls{0};
    try {
      pool.run([&](int worker) {
        ++n_calls;
        if (worker >= bad) fail(ErrorCode::kIo, "worker failed");
      });
      FAIL() << "no error came back";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      EXPECT_STREQ(error.what(), "worker failed");
    }
    EXPECT_EQ(n_calls.load(), 4);
  }
  std::atomic<int> n_calls{0};
  pool.run([&](int) { ++n_calls; });
  EXPECT_EQ(n_calls.load(), 4);
}

TEST(Threads, From_inside_a_body_the_caller_does_all_shares) {
  ThreadPool pool(3);
  std::atomic<int> n_inner{0}, n_indices{0};
  pool.run([&](int) {
    const std::thread::id me = std::this_thread::get_id();
    pool.run([&](int) {
      EXPECT_EQ(std::this_thread::get_id(), me);
      ++n_inner;
    });
    pool.parallel_for(10, 1, [&](int64_t begin, int64_t end) {
      EXPECT_EQ(std::this_thread::get_id(), me);
      n_indices += static_cast<int>(end - begin);
    });
  });
  EXPECT_EQ(n_inner.load(), 9);
  EXPECT_EQ(n_indices.load(), 30);
}

TEST(Threads, Callers_on_several_threads_take_turns) {
  ThreadPool pool(2);
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(4);
  for (size_t c = 0; c < sums.size(); ++c)
    callers.emplace_back([&pool, &sum = sums[c]] {
      for (int round = 0; round < 100; ++round) {
        std::atomic<int64_t> part{0};
        pool.parallel_for(100, 3, [&](int64_t begin, int64_t end) { part += end - begin; });
        sum += part;
      }
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sums, std::vector<int64_t>(4, 10000));
}

TEST(Threads, Pools_can_be_made_and_dropped_at_once) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(1 + round % 4);
    if (round % 3 == 0) pool.run([](int) {});
  }
}

}  // namespace pmetal
