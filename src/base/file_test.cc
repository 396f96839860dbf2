// Atomic saves under every way of failing: injected faults at each passage, limits of the system, kill -9 at every
// passage and at random moments. What must hold: the destination is whole, old or new; nothing else stays beside it.
#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/testing.h"

namespace pmetal {
namespace {

class File : public testing::Test {
 protected:
  void SetUp() override { dir_ = testing_support::scratch_dir("file_test"); }
  void TearDown() override {
    set_fault(nullptr);
    fs::remove_all(dir_);
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(dir_)) found.push_back(entry.path().filename().string());
    std::sort(found.begin(), found.end());
    return found;
  }
  fs::path dir_;
};
using FileLong = File;
using Names = std::vector<std::string>;

// two files and a subfolder that all hold `version`; 3 MB so that a write takes several passages
void save_folder(const fs::path& path, const std::string& version) {
  AtomicDirectory folder(path);
  write_file_atomic(folder.temporary() / "a", version);
  fs::create_directories(folder.temporary() / "sub");
  AtomicFile big(folder.temporary() / "sub" / "b");
  big.write(version);
  big.write(std::string(3 << 20, '.'));
  big.commit();
  folder.commit();
}

// the version of a folder; "" when it is not whole
std::string version_of(const fs::path& path) {
  const std::string a = read_text(path / "a"), b = read_text(path / "sub" / "b");
  return b == a + std::string(3 << 20, '.') ? a : "";
}

// runs body in a child process; returns how it ended, as waitpid tells
int in_child(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_F(File, Uncommitted_leaves_the_old_content) {
  write_file_atomic(dir_ / "a", "old");
  {
    AtomicFile file(dir_ / "a");
    file.write("new");
    EXPECT_EQ(names().size(), 2u);
  }
  EXPECT_EQ(read_text(dir_ / "a"), "old");
  write_file_atomic(dir_ / "a", "new");
  EXPECT_EQ(read_text(dir_ / "a"), "new");
  EXPECT_EQ(names(), Names{"a"});
}

TEST_F(File, Errors_name_the_path_and_the_reason) {
  const auto message = [](const std::function<void()>& body) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const std::string absent = (dir_ / "absent").string();
  EXPECT_EQ(message([&] { read_text(absent); }), absent + ": cannot open: No such file or directory; check the path");
  EXPECT_EQ(message([&] { map_file(absent); }), absent + ": cannot open: No such file or directory; check the path");
  EXPECT_EQ(message([&] { AtomicFile file(absent + "/x"); }),
            absent + "/x: cannot create: No such file or directory; check the path");
  EXPECT_EQ(message([&] { read_text(dir_); }), dir_.string() + ": is a folder, a file is needed");
  EXPECT_EQ(message([&] { map_file(dir_); }), dir_.string() + ": is a folder, a file is needed");
  EXPECT_EQ(message([&] { AtomicFile file(dir_); }),
            dir_.string() + ": exists and is not a regular file; choose another name");
  write_file_atomic(dir_ / "a", "");
  EXPECT_EQ(message([&] { AtomicDirectory folder(dir_ / "a"); }),
            (dir_ / "a").string() + ": exists and is not a folder; choose another name");
  set_fault("write:1");
  EXPECT_EQ(message([&] { write_file_atomic(dir_ / "b", "x"); }),
            (dir_ / "b").string() + ": cannot write: No space left on device; free space or choose another folder");
  EXPECT_EQ(names(), Names{"a"});
}

TEST_F(File, Maps_show_the_bytes_and_empty_files_map_to_nothing) {
  write_file_atomic(dir_ / "a", "0123456789");
  write_file_atomic(dir_ / "empty", "");
  const Buffer map = map_file(dir_ / "a");
  ASSERT_EQ(map.size_bytes(), 10);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(map.data()), 10), "0123456789");
  drop_mapped_pages(map);
  EXPECT_EQ(static_cast<char>(map.data()[9]), '9');
  EXPECT_EQ(map_file(dir_ / "empty").size_bytes(), 0);
}

TEST_F(File, Every_failing_passage_leaves_the_old_file_alone) {
  const std::string big(3 << 20, 'x');
  for (const char* point : {"write", "sync", "rename"}) {
    int n_failed = 0;
    for (;; ++n_failed) {
      write_file_atomic(dir_ / "a", "old");
      set_fault(fmt::format("{}:{}", point, n_failed + 1).c_str());
      try {
        write_file_atomic(dir_ / "a", big);
        set_fault(nullptr);
        break;
      } catch (const Error& error) {
        set_fault(nullptr);
        EXPECT_EQ(error.code(), ErrorCode::kIo);
        EXPECT_EQ(read_text(dir_ / "a"), "old");
        EXPECT_EQ(names(), Names{"a"});
      }
    }
    EXPECT_EQ(n_failed, std::string(point) == "write" ? 3 : 1) << point;  // writes are of 1 MiB
    EXPECT_EQ(read_text(dir_ / "a"), big);
  }
}

TEST_F(File, Every_failing_passage_leaves_the_old_folder_alone) {
  for (const char* point : {"write", "sync", "rename"}) {
    save_folder(dir_ / "model", "old");
    int n_failed = 0;
    for (;; ++n_failed) {
      set_fault(fmt::format("{}:{}", point, n_failed + 1).c_str());
      try {
        save_folder(dir_ / "model", "new");
        set_fault(nullptr);
        break;
      } catch (const Error&) {
        set_fault(nullptr);
        ASSERT_EQ(version_of(dir_ / "model"), "old");
        ASSERT_EQ(names(), Names{"model"});
      }
    }
    EXPECT_GE(n_failed, 3) << point;
    EXPECT_EQ(version_of(dir_ / "model"), "new");
    EXPECT_EQ(names(), Names{"model"});
  }
}

TEST_F(File, A_size_limit_of_the_system_is_an_error_and_leaves_nothing) {
  const int status = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file_atomic(dir_ / "a", std::string(2 << 20, 'x'));
    } catch (const Error& error) {
      ::_exit(error.code() == ErrorCode::kIo ? 3 : 4);
    }
  });
  EXPECT_EQ(WEXITSTATUS(status), 3);
  EXPECT_EQ(names(), Names{});
}

TEST_F(File, Killed_at_any_passage_the_folder_is_whole_and_the_next_save_cleans_up) {
  for (const char* point : {"write", "sync", "rename"}) {
    save_folder(dir_ / "model", "old");
    int n_killed = 0;
    for (;; ++n_killed) {
      const int status = in_child([&] {
        set_fault(fmt::format("{}:{}:kill", point, n_killed + 1).c_str());
        save_folder(dir_ / "model", "new");
      });
      if (!WIFSIGNALED(status)) break;
      ASSERT_EQ(WTERMSIG(status), SIGKILL);
      ASSERT_EQ(version_of(dir_ / "model"), "old");
      ASSERT_EQ(names().size(), 2u);  // the folder and what the dead process left
      for (const std::string& name : names()) ASSERT_EQ(is_temporary_name(name), name != "model") << name;
    }
    EXPECT_GE(n_killed, 3) << point;
    EXPECT_EQ(version_of(dir_ / "model"), "new");
    EXPECT_EQ(names(), Names{"model"});
  }
}

// A child replaces the folder without pause; whoever opens it at any moment finds a whole one. Then the child is
// killed, and the folder is still whole.
void kill_while_replacing(const fs::path& path, int n_kills) {
  std::mt19937 random(11);
  save_folder(path, "0");
  for (int round = 0; round < n_kills; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int version = 1;; ++version) save_folder(path, std::to_string(version));
    }
    bool always_there = true;
    ino_t last = 0;
    const auto n_replacements = 1 + static_cast<int>(random() % 8);
    for (int seen = 0; seen <= n_replacements && always_there;) {
      struct stat found {};
      always_there = ::stat(path.c_str(), &found) == 0;
      if (std::exchange(last, found.st_ino) != found.st_ino) ++seen;
    }
    for (auto n_more = random() % 2000; n_more > 0; --n_more) always_there &= ::access(path.c_str(), F_OK) == 0;
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ASSERT_TRUE(always_there) << "round " << round;
    ASSERT_NE(version_of(path), "") << "round " << round;
  }
  save_folder(path, "last");
  EXPECT_EQ(version_of(path), "last");
}

TEST_F(File, Killed_at_random_moments_the_folder_is_there_at_every_moment) {
  kill_while_replacing(dir_ / "model", 20);
  EXPECT_EQ(names(), Names{"model"});
}

TEST_F(FileLong, Killed_three_hundred_times_the_folder_is_there_at_every_moment) {
  kill_while_replacing(dir_ / "model", 300);
  EXPECT_EQ(names(), Names{"model"});
}

TEST_F(File, A_temporary_that_is_being_written_is_not_taken_for_a_stale_one) {
  AtomicFile first(dir_ / "a");
  first.write("first");
  AtomicDirectory first_folder(dir_ / "d");
  write_file_atomic(first_folder.temporary() / "x", "first");
  EXPECT_EQ(WEXITSTATUS(in_child([&] {
              write_file_atomic(dir_ / "a", "second");
              AtomicDirectory(dir_ / "d").commit();
            })),
            0);
  EXPECT_EQ(read_text(dir_ / "a"), "second");
  first.commit();
  first_folder.commit();
  EXPECT_EQ(read_text(dir_ / "a"), "first");
  EXPECT_EQ(read_text(dir_ / "d" / "x"), "first");
  EXPECT_EQ(names(), (Names{"a", "d"}));
}

TEST_F(File, Foreign_files_with_similar_names_stay) {
  for (const char* name : {"a.tmp-", "a.tmp-1", "a.tmp-1-x", "a.tmp-old", "ab.tmp-1-1"})
    write_file_atomic(dir_ / name, "");
  write_file_atomic(dir_ / "a.tmp-99999999-7", "left by a process that is gone");
  write_file_atomic(dir_ / "a", "new");
  EXPECT_EQ(names(), (Names{"a", "a.tmp-", "a.tmp-1", "a.tmp-1-x", "a.tmp-old", "ab.tmp-1-1"}));
}

TEST_F(File, A_folder_moved_aside_is_kept_while_it_is_the_only_copy) {
  fs::create_directories(dir_ / "model.tmp-99999999-0.old");
  save_folder(dir_ / "model", "new");
  EXPECT_EQ(names(), (Names{"model", "model.tmp-99999999-0.old"}));
  save_folder(dir_ / "model", "newer");
  EXPECT_EQ(names(), Names{"model"});
}

TEST_F(File, Symbolic_links_keep_pointing_and_trailing_slashes_do_not_matter) {
  fs::create_directories(dir_ / "disk");
  save_folder(dir_ / "disk" / "real", "old");
  fs::create_symlink("disk/real", dir_ / "link");
  save_folder(dir_ / "link", "new");
  EXPECT_TRUE(fs::is_symlink(dir_ / "link"));
  EXPECT_EQ(version_of(dir_ / "disk" / "real"), "new");
  write_file_atomic(dir_ / "disk" / "file", "old");
  fs::create_symlink("disk/file", dir_ / "file_link");
  write_file_atomic(dir_ / "file_link", "new");
  EXPECT_TRUE(fs::is_symlink(dir_ / "file_link"));
  EXPECT_EQ(read_text(dir_ / "disk" / "file"), "new");
  save_folder(fs::path(dir_.string() + "/disk/real/"), "slash");
  EXPECT_EQ(version_of(dir_ / "disk" / "real"), "slash");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_ / "disk"), fs::directory_iterator()), 2);
}

TEST(Fault, A_text_that_is_no_fault_is_refused) {
  for (const char* text : {"", ":1", "write:", "write:0", "write:-1", "write:x", "write:1:die", "write:1x"})
    EXPECT_THROW(set_fault(text), Error) << text;
  set_fault("here");
  EXPECT_FALSE(fault_due("there"));
  EXPECT_TRUE(fault_due("here"));
  EXPECT_FALSE(fault_due("here"));
  set_fault("here:2");
  EXPECT_FALSE(fault_due("here"));
  EXPECT_TRUE(fault_due("here"));
  set_fault(nullptr);
  EXPECT_FALSE(fault_due("here"));
}

}  // namespace
}  // namespace pmetal
