// The two hashes by which the hub names contents: SHA-256 of large files, and Git's blob hash of the others:
// SHA-1 of "blob <size>\0" followed by the bytes. And base64 (RFC 4648), in which it takes small contents.
#pragma once

#include <string>
#include <string_view>

#include "base/file.h"

namespace pmetal::hub {

// Lower-case hexadecimal. Error(kIo) when the file cannot be read.
std::string sha256_of_file(const fs::path& path);
std::string git_sha1_of_file(const fs::path& path);

std::string base64(std::string_view bytes);

}  // namespace pmetal::hub
