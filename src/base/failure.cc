#include "base/failure.h"

#include <fmt/format.h>

#include <filesystem>
#include <new>
#include <string_view>

namespace pmetal {
namespace {

const char* remedy_of(const std::error_code& code) {
  if (code == std::errc::no_space_on_device) return "; free space or choose another folder";
  if (code == std::errc::permission_denied || code == std::errc::operation_not_permitted ||
      code == std::errc::read_only_file_system)
    return "; choose a folder you may write to";
  return code == std::errc::no_such_file_or_directory || code == std::errc::not_a_directory ? "; check the path" : "";
}

}  // namespace

std::string failure_text(const std::exception& failure) {
  if (dynamic_cast<const std::bad_alloc*>(&failure)) return "out of memory: use a smaller batch or shorter sequences";
  const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&failure);
  if (!file || file->path1().empty()) return failure.what();
  // the library writes "filesystem error: WHAT: REASON [PATH]"
  std::string_view what = file->what();
  constexpr std::string_view kPrefix = "filesystem error: ";
  if (what.starts_with(kPrefix)) what.remove_prefix(kPrefix.size());
  what = what.substr(0, what.find(": " + file->code().message()));
  return fmt::format("{}: {}: {}{}", file->path1().string(), what, file->code().message(), remedy_of(file->code()));
}

}  // namespace pmetal
