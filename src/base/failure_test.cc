#include "base/failure.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <new>
#include <stdexcept>

namespace pmetal {
namespace {

std::string text_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return failure_text(e);
  }
  return "nothing thrown";
}

TEST(Failure, Says_object_reason_and_remedy) {
  namespace fs = std::filesystem;
  EXPECT_EQ(text_of([] { fs::create_directories("/proc/none/text"); }),
            "/proc/none/text: cannot create directories: No such file or directory; check the path");
  EXPECT_EQ(text_of([] { fs::file_size("/dev/null"); }), "/dev/null: cannot get file size: Operation not supported");
  EXPECT_EQ(text_of([] {
              throw fs::filesystem_error("cannot rename", "a", "b",
                                         std::make_error_code(std::errc::no_space_on_device));
            }),
            "a: cannot rename: No space left on device; free space or choose another folder");
  EXPECT_EQ(text_of([] { throw std::bad_alloc(); }), "out of memory: use a smaller batch or shorter sequences");
  EXPECT_EQ(text_of([] { throw std::runtime_error("plain"); }), "plain");
}

}  // namespace
}  // namespace pmetal
