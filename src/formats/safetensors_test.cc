// safetensors: files of the official writer are read, written again and compared byte by byte; broken ones are refused
// by the rules at https://huggingface.co/docs/safetensors.
#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>

#include "base/error.h"
#include "base/testing.h"
#include "formats/sharded.h"

// The largest single allocation since it was last reset: a header that claims gigabytes must not get them. The
// sanitizers have operators of their own, which refuse absurd sizes by themselves.
namespace {
std::atomic<size_t> largest_allocation{0};
}
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
__attribute__((noinline)) void* operator new(size_t size) {
  size_t seen = largest_allocation.load();
  while (size > seen && !largest_allocation.compare_exchange_weak(seen, size)) {
  }
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

namespace pmetal::formats {
namespace {

std::string file_of(std::string_view header, std::string_view data = "") {
  std::string out(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(out.data(), &length, 8);
  return out.append(header).append(data);
}

SafetensorsFile parse_bytes(std::string_view bytes) {
  const Buffer buffer = allocate_host(static_cast<int64_t>(bytes.size()));
  if (!bytes.empty()) std::memcpy(buffer.data(), bytes.data(), bytes.size());
  return SafetensorsFile::parse(buffer, "m.safetensors");
}

std::string error_of(std::string_view bytes) {
  try {
    parse_bytes(bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::vector<fs::path> all_files(std::string_view suffix) {
  std::vector<fs::path> out;
  std::vector<fs::path> roots = {testing_support::data_dir()};
  if (!testing_support::shared_dir().empty()) roots.push_back(testing_support::shared_dir());
  for (const fs::path& root : roots)
    for (const auto& entry : fs::recursive_directory_iterator(root))
      if (entry.path().string().ends_with(suffix)) out.push_back(entry.path());
  return out;
}

std::vector<TensorDeclaration> declarations(const std::vector<TensorView>& tensors) {
  std::vector<TensorDeclaration> out;
  for (const TensorView& t : tensors) out.push_back({t.name, t.dtype, t.shape});
  return out;
}

std::span<const std::byte> bytes_of(const TensorView& tensor) {
  return {tensor.bytes.data(), static_cast<size_t>(tensor.bytes.size_bytes())};
}

std::string small_file() {
  return file_of(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}} )",
      "abcdefghijk");
}

}  // namespace

TEST(Safetensors, Values_come_from_their_place_in_the_file) {
  const SafetensorsFile file = parse_bytes(small_file());
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.at("a").dtype, DType::kF32);
  EXPECT_EQ(file.at("a").shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(std::memcmp(file.at("b").bytes.data(), "ijk", 3), 0);
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}}));
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_THROW(file.at("c"), Error);
}

TEST(Safetensors, Files_of_the_official_writer_are_written_again_with_the_same_bytes) {
  const fs::path folder = testing_support::scratch_dir("safetensors");
  const std::vector<fs::path> files = all_files(".safetensors");
  EXPECT_GE(files.size(), 4u);
  for (const fs::path& path : files) {
    SCOPED_TRACE(path.string());
    const SafetensorsFile file = SafetensorsFile::open(path);
    if (file.metadata().size() > 1) continue;  // the official writer puts several keys in random order
    std::vector<TensorDeclaration> reversed = declarations(file.tensors());
    std::reverse(reversed.begin(), reversed.end());
    SafetensorsWriter writer(folder / "again.safetensors", reversed, file.metadata());
    for (const TensorDeclaration& t : writer.order()) {
      const auto bytes = bytes_of(file.at(t.name));
      writer.write(t.name, bytes.first(bytes.size() / 2));
      writer.write(t.name, bytes.subspan(bytes.size() / 2));
    }
    writer.finish();
    EXPECT_TRUE(read_text(folder / "again.safetensors") == read_text(path));
  }
  fs::remove_all(folder);
}

TEST(Safetensors, Every_dtype_goes_through_a_file_and_back) {
  const fs::path folder = testing_support::scratch_dir("safetensors_dtypes");
  std::vector<TensorDeclaration> tensors;
  for (const char* name : {"F32", "BF16", "F16", "F64", "I32", "I64", "U8", "I8", "I16", "U16", "U32", "U64", "BOOL",
                           "F8_E4M3", "F8_E5M2"})
    tensors.push_back({std::string("weight \"") + name + "\" é", *dtype_from_safetensors(name), {3, 1}});
  tensors.push_back({"empty", DType::kF32, {0, 5}});
  tensors.push_back({"scalar", DType::kI64, {}});
  SafetensorsWriter writer(folder / "x.safetensors", tensors, {});
  unsigned char next = 0;
  for (const TensorDeclaration& t : writer.order()) {
    std::vector<std::byte> bytes(static_cast<size_t>(t.size_bytes()));
    for (std::byte& b : bytes) b = static_cast<std::byte>(next++);
    writer.write(t.name, bytes);
  }
  EXPECT_FALSE(fs::exists(folder / "x.safetensors"));
  writer.finish();
  const SafetensorsFile file = SafetensorsFile::open(folder / "x.safetensors");
  EXPECT_EQ(declarations(file.tensors()).size(), tensors.size());
  EXPECT_TRUE(file.metadata().empty());
  next = 0;
  for (const TensorView& t : file.tensors())
    for (const std::byte b : bytes_of(t)) EXPECT_EQ(static_cast<unsigned char>(b), next++);
  for (const TensorDeclaration& t : tensors) {
    EXPECT_EQ(file.at(t.name).dtype, t.dtype);
    EXPECT_EQ(file.at(t.name).shape, t.shape);
  }
  const std::byte* start = file.tensors().front().bytes.data();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(start) % 8, 0u);
  fs::remove_all(folder);
}

TEST(Safetensors, An_unfinished_writer_leaves_the_old_file) {
  const fs::path folder = testing_support::scratch_dir("safetensors_atomic");
  write_file_atomic(folder / "x.safetensors", "old");
  {
    SafetensorsWriter writer(folder / "x.safetensors", {{"a", DType::kU8, {4}}});
    writer.write("a", std::as_bytes(std::span("1234", 4)));
  }
  EXPECT_EQ(read_text(folder / "x.safetensors"), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
  fs::remove_all(folder);
}

TEST(Safetensors, Broken_headers_are_refused_with_the_reason) {
  const auto one = [](std::string_view info, std::string_view data = "") {
    return error_of(file_of(fmt::format(R"({{"a":{}}})", info), data));
  };
  const std::string damaged = "; the header is damaged";
  EXPECT_EQ(error_of(""),
            "m.safetensors: is 0 bytes long, a safetensors file has at least 8; download or copy it again");
  EXPECT_EQ(error_of(file_of(" {}")), "m.safetensors: the header does not begin with '{'; is this a safetensors file?");
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", "1234"),
            "m.safetensors: tensor \"a\" of F32 [2] needs 8 bytes, its data_offsets [0, 4] are 4" + damaged);
  EXPECT_EQ(one(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8]})", "1234"),
            "m.safetensors: tensor \"a\" ends at byte 8 of 4; the file is truncated — download or copy it again");
  EXPECT_EQ(one(R"({"dtype":"U8","shape":[4],"data_offsets":[4,0]})", "1234"),
            "m.safetensors: tensor \"a\" begins at byte 4 and ends before it, at 0" + damaged);
  EXPECT_EQ(one(R"({"dtype":"U8","shape":[-4],"data_offsets":[0,4]})", "1234"),
            "m.safetensors: tensor \"a\" has the number -4 in shape" + damaged);
  EXPECT_EQ(one(R"({"dtype":"U8","shape":[4.0],"data_offsets":[0,4]})", "1234"),
            "m.safetensors: tensor \"a\" has the number 4 in shape, an integer is needed" + damaged);
  EXPECT_EQ(one(R"({"dtype":"U8","shape":[1099511627776,1099511627776],"data_offsets":[0,4]})", "1234"),
            "m.safetensors: tensor \"a\" has the shape [1099511627776, 1099511627776], more than any file holds");
  EXPECT_EQ(one(R"({"dtype":"F4","shape":[8],"data_offsets":[0,4]})", "1234"),
            "m.safetensors: tensor \"a\" has dtype F4, which this version cannot read");
  EXPECT_EQ(one(R"({"dtype":"Q9","shape":[4],"data_offsets":[0,4]})", "1234"),
            "m.safetensors: tensor \"a\" has the unknown dtype \"Q9\"" + damaged);
  EXPECT_EQ(one(R"({"dtype":"U8","shape":[4]})", "1234"), "m.safetensors: tensor \"a\" has no data_offsets" + damaged);
  EXPECT_EQ(one(R"({"dtype":"U8","shape":[3],"data_offsets":[0,3]})", "1234"),
            "m.safetensors: the tensors end at byte 3, the file has 4 bytes of data: 1 belong to none");
  EXPECT_EQ(one(R"(7)"), "m.safetensors: tensor \"a\" must be an object with dtype, shape and data_offsets" + damaged);
  const auto two = [](std::string_view a, std::string_view b) {
    return error_of(file_of(fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":[{}]}},"b":{{"dtype":"U8",)"
                                        R"("shape":[4],"data_offsets":[{}]}}}})",
                                        a, b),
                            "0123456789"));
  };
  EXPECT_EQ(two("0,4", "2,6"),
            "m.safetensors: tensor \"b\" begins at byte 2, the one before it ends at 4: they overlap");
  EXPECT_EQ(two("0,4", "6,10"),
            "m.safetensors: tensor \"b\" begins at byte 6, the one before it ends at 4: they leave a gap, which the "
            "format forbids");
  EXPECT_EQ(error_of(file_of(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                             R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})")),
            "m.safetensors: two tensors are named \"a\"" + damaged);
  EXPECT_EQ(error_of(file_of(R"({"__metadata__":{"a":1}})")),
            "m.safetensors: __metadata__ must be an object of strings" + damaged);
  EXPECT_EQ(error_of(file_of(R"({"__metadata__":{"a":"1","a":"2"}})")),
            "m.safetensors: __metadata__ has the key \"a\" twice" + damaged);
}

TEST(Safetensors, Every_truncation_of_a_file_is_an_error) {
  const std::string whole = small_file();
  EXPECT_EQ(error_of(whole), "no error");
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_NE(error_of(std::string_view(whole).substr(0, n)), "no error") << n;
  EXPECT_NE(error_of(whole + "x"), "no error");
}

TEST(Safetensors, Two_thousand_bit_flips_give_an_error_or_views_inside_the_file) {
  const std::string whole = read_text(testing_support::data_dir() / "checkpoints" / "qwen3-sharded-bf16" /
                                      "model-00003-of-00003.safetensors");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data(), 8);
  std::mt19937_64 random(20240607);
  int n_refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = whole;
    const uint64_t bit = random() % (8 * (8 + header_bytes));
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    const Buffer buffer = allocate_host(static_cast<int64_t>(bytes.size()));
    std::memcpy(buffer.data(), bytes.data(), bytes.size());
    try {
      const SafetensorsFile file = SafetensorsFile::parse(buffer, "flipped");
      int64_t covered = 0;
      for (const TensorView& t : file.tensors()) {
        ASSERT_GE(t.bytes.data(), buffer.data());
        ASSERT_LE(t.bytes.data() + t.bytes.size_bytes(), buffer.data() + buffer.size_bytes());
        covered += t.bytes.size_bytes();
      }
      ASSERT_EQ(covered, static_cast<int64_t>(bytes.size() - 8 - header_bytes));
    } catch (const Error&) {
      ++n_refused;
    }
  }
  EXPECT_GT(n_refused, 500);  // flips inside names and of padding are harmless, most others are not
}

TEST(Safetensors, Absurd_sizes_are_refused_before_anything_is_allocated) {
  std::vector<std::string> hostile;
  for (const uint64_t length : {uint64_t{99'000'000}, uint64_t{100'000'001}, uint64_t{1} << 40, uint64_t{1} << 63,
                                ~uint64_t{0}, ~uint64_t{7}}) {
    std::string bytes = file_of("{}");
    std::memcpy(bytes.data(), &length, 8);
    hostile.push_back(bytes);
  }
  for (const char* shape : {"4611686018427387904", "9223372036854775807", "1099511627776,1099511627776", "0,4294967296",
                            "18446744073709551615", "99999999999999999999999"})
    for (const char* offsets : {"0,4", "0,9223372036854775807", "9223372036854775806,9223372036854775807", "0,1e30"})
      hostile.push_back(file_of(
          fmt::format(R"({{"a":{{"dtype":"F64","shape":[{}],"data_offsets":[{}]}}}})", shape, offsets), "1234"));
  for (const std::string& bytes : hostile) {
    largest_allocation = 0;
    EXPECT_NE(error_of(bytes), "no error");
    EXPECT_LT(largest_allocation.load(), 4096u);
  }
}

}  // namespace pmetal::formats
