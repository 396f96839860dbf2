// Smoke tests of base/: known answers of Philox (the paper's Random123 vectors), threads, atomic files.
#include <gtest/gtest.h>

#include <atomic>

#include "base/dtype.h"
#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/threads.h"

namespace pmetal {

TEST(Rng, Philox_known_answers) {
  EXPECT_EQ(philox4x32({0, 0}, {0, 0, 0, 0}), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u}, {~0u, ~0u, ~0u, ~0u}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Threads, Every_index_is_visited_once_and_errors_come_back) {
  ThreadPool pool(3);
  std::vector<std::atomic<int>> hits(1001);
  pool.parallel_for(1001, 7, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) ++hits[static_cast<size_t>(i)];
  });
  for (auto& h : hits) EXPECT_EQ(h.load(), 1);
  EXPECT_THROW(pool.run([](int worker) {
    if (worker == 2) fail(ErrorCode::kIo, "worker {}", worker);
  }),
               Error);
  pool.run([&](int) { pool.run([](int) {}); });
}

TEST(File, Uncommitted_atomic_file_leaves_the_old_content) {
  const fs::path dir = fs::path(testing::TempDir()) / "pmetal_base_test";
  fs::create_directories(dir);
  write_file_atomic(dir / "a", "old");
  {
    AtomicFile file(dir / "a");
    file.write("new");
  }
  EXPECT_EQ(read_text(dir / "a"), "old");
  write_file_atomic(dir / "a", "new");
  EXPECT_EQ(read_text(dir / "a"), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), fs::directory_iterator()), 1);
  EXPECT_THROW(read_text(dir / "absent"), Error);
  fs::remove_all(dir);
}

}  // namespace pmetal
