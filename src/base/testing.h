// Where tests find their data. Not used by the product.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace pmetal::testing_support {

// the checkout this test was built in: the nearest folder above the executable that has a CMakeLists.txt
inline std::filesystem::path source_dir() {
  for (std::filesystem::path p = std::filesystem::read_symlink("/proc/self/exe").parent_path(); p != p.parent_path();
       p = p.parent_path())
    if (std::filesystem::exists(p / "CMakeLists.txt")) return p;
  return std::filesystem::current_path();
}
// data that travels with the project
inline std::filesystem::path data_dir() { return source_dir() / "tests" / "data"; }
// the full reference fixtures beside the checkout; empty when absent (a user's clone)
inline std::filesystem::path shared_dir() {
  const std::filesystem::path p = source_dir().parent_path() / "shared";
  return std::filesystem::exists(p / "fixtures") ? p : std::filesystem::path();
}
// a fresh folder for this test's output; the caller removes it
inline std::filesystem::path scratch_dir(const std::string& name) {
  const auto p = std::filesystem::temp_directory_path() / ("pmetal-" + name + "-" + std::to_string(::getpid()));
  std::filesystem::remove_all(p);
  std::filesystem::create_directories(p);
  return p;
}

}  // namespace pmetal::testing_support
