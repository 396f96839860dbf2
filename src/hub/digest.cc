#include "hub/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "base/error.h"

namespace pmetal::hub {
namespace {

std::string digest_of(const EVP_MD* method, std::string_view prefix, const fs::path& path) {
  const Buffer bytes = map_file(path);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  bool fine = context && EVP_DigestInit_ex(context.get(), method, nullptr) == 1 &&
              EVP_DigestUpdate(context.get(), prefix.data(), prefix.size()) == 1;
  constexpr int64_t kStep = int64_t{64} << 20;  // so that pages of a large file can be dropped behind
  for (int64_t at = 0; fine && at < bytes.size_bytes(); at += kStep) {
    const int64_t n = std::min(kStep, bytes.size_bytes() - at);
    fine = EVP_DigestUpdate(context.get(), bytes.data() + at, static_cast<size_t>(n)) == 1;
    drop_mapped_pages(bytes.slice(at, n));
  }
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned int n = 0;
  if (!fine || EVP_DigestFinal_ex(context.get(), sum, &n) != 1)
    fail(ErrorCode::kIo, "{}: the OpenSSL library cannot compute its {} hash", path.string(), EVP_MD_get0_name(method));
  std::string text;
  for (unsigned int i = 0; i < n; ++i) text += fmt::format("{:02x}", sum[i]);
  return text;
}

}  // namespace

std::string sha256_of_file(const fs::path& path) { return digest_of(EVP_sha256(), "", path); }

std::string git_sha1_of_file(const fs::path& path) {
  std::string prefix = fmt::format("blob {}", fs::file_size(path));
  prefix += '\0';
  return digest_of(EVP_sha1(), prefix, path);
}

std::string base64(std::string_view bytes) {
  constexpr size_t kStep = 3 << 20;  // EVP_EncodeBlock takes an int; whole groups of three
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += kStep) {
    const std::string_view part = bytes.substr(at, kStep);
    std::string out(4 * ((part.size() + 2) / 3) + 1, '\0');
    const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                  reinterpret_cast<const unsigned char*>(part.data()), static_cast<int>(part.size()));
    text.append(out, 0, static_cast<size_t>(n));
  }
  return text;
}

}  // namespace pmetal::hub
