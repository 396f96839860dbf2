// Runs every file of fuzz/corpus/<name>/ through the fuzz target it is linked with. A broken property aborts there.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "base/file.h"
#include "base/testing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

TEST(Corpus, Every_stored_input_is_accepted_or_refused_cleanly) {
  const auto folder = pmetal::testing_support::source_dir() / "fuzz" / "corpus" / PMETAL_CORPUS;
  int n_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path().string());
    const std::string bytes = pmetal::read_text(entry.path());
    EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()), 0);
    ++n_files;
  }
  EXPECT_GT(n_files, 20);
}
