// Conversions of the narrow floats against PyTorch's (tests/data/numerics/float_casts.safetensors, written with torch;
// 8-bit casts do not saturate) and, for f16, against the compiler's own _Float16 on every value.
#include "base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/testing.h"

namespace pmetal {
namespace {

// name -> bytes of a safetensors file that is trusted
std::map<std::string, std::string> tensors_of(const fs::path& path) {
  const std::string file = read_text(path);
  uint64_t header_size = 0;
  std::memcpy(&header_size, file.data(), sizeof header_size);
  const auto header = nlohmann::json::parse(file.substr(8, header_size));
  std::map<std::string, std::string> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    tensors[name] = file.substr(8 + header_size + begin, end - begin);
  }
  return tensors;
}

std::vector<float> floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// equal bits, or both NaN
bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

struct Narrow {
  const char* name;  // in the fixture
  DType dtype;
};
constexpr Narrow kNarrow[] = {
    {"bf16", DType::kBF16}, {"f16", DType::kF16}, {"e4m3fn", DType::kF8E4M3}, {"e5m2", DType::kF8E5M2}};

class Casts : public testing::Test {
 protected:
  void SetUp() override { tensors_ = tensors_of(testing_support::data_dir() / "numerics" / "float_casts.safetensors"); }
  std::map<std::string, std::string> tensors_;
};

TEST_F(Casts, Every_8_bit_code_has_PyTorchs_value) {
  for (const auto& [name, decode] : {std::pair{"e4m3fn", &f8e4m3_to_f32}, std::pair{"e5m2", &f8e5m2_to_f32}}) {
    const std::vector<float> expected = floats(tensors_.at(std::string("all_bytes.") + name + ".f32"));
    ASSERT_EQ(expected.size(), 256u);
    for (int code = 0; code < 256; ++code)
      EXPECT_PRED2(same, decode(static_cast<uint8_t>(code)), expected[static_cast<size_t>(code)])
          << name << " " << code;
  }
}

TEST_F(Casts, Every_8_bit_code_survives_a_round_trip) {
  for (int code = 0; code < 256; ++code) {
    const auto bits = static_cast<uint8_t>(code);
    if (!std::isnan(f8e4m3_to_f32(bits))) {
      EXPECT_EQ(f32_to_f8e4m3(f8e4m3_to_f32(bits)), bits);
    }
    if (!std::isnan(f8e5m2_to_f32(bits))) {
      EXPECT_EQ(f32_to_f8e5m2(f8e5m2_to_f32(bits)), bits);
    }
  }
}

TEST_F(Casts, Rounding_from_f32_equals_PyTorchs_in_bits) {
  for (const char* set : {"normal", "outliers", "ranges", "special"}) {
    const std::vector<float> from = floats(tensors_.at(std::string(set) + ".f32"));
    const auto n = static_cast<int64_t>(from.size());
    ASSERT_GE(n, 64);
    for (const Narrow& narrow : kNarrow) {
      SCOPED_TRACE(std::string(set) + " to " + narrow.name);
      std::vector<uint8_t> bits(static_cast<size_t>(n * size_of(narrow.dtype)));
      convert(from.data(), DType::kF32, bits.data(), narrow.dtype, n);
      std::vector<float> back(from.size());
      convert(bits.data(), narrow.dtype, back.data(), DType::kF32, n);
      const std::vector<float> expected = floats(tensors_.at(std::string(set) + "." + narrow.name + ".f32"));
      for (size_t i = 0; i < from.size(); ++i) ASSERT_PRED2(same, back[i], expected[i]) << "from " << from[i];
      const auto stored = tensors_.find(std::string(set) + "." + narrow.name + ".bits");
      if (stored == tensors_.end()) continue;
      for (size_t i = 0; i < from.size(); ++i)
        ASSERT_EQ(bits[i], static_cast<uint8_t>(stored->second[i])) << "from " << from[i];
    }
  }
}

TEST(Dtype, Every_f16_code_reads_and_writes_as_the_compilers) {
  for (uint32_t code = 0; code < 65536; ++code) {
    const F16 half{static_cast<uint16_t>(code)};
    const auto expected = static_cast<float>(std::bit_cast<_Float16>(half.bits));
    ASSERT_PRED2(same, to_f32(half), expected) << code;
    if (!std::isnan(expected)) {
      ASSERT_EQ(to_f16(expected).bits, half.bits) << code;
    }
  }
}

TEST(Dtype, F16_rounding_equals_the_compilers_on_random_bits_and_on_ties) {
  std::mt19937 random(7);
  const auto check = [](uint32_t bits) {
    const auto value = std::bit_cast<float>(bits);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_f32(to_f16(value))));
      return;
    }
    ASSERT_EQ(to_f16(value).bits, std::bit_cast<uint16_t>(static_cast<_Float16>(value))) << value;
  };
  for (int i = 0; i < 300000; ++i) check(random());
  for (uint32_t code = 0; code < 0x7c00; ++code) {  // half way between neighbours, and one bit to each side
    const float low = to_f32(F16{static_cast<uint16_t>(code)});
    const float high = code == 0x7bff ? 65536.f : to_f32(F16{static_cast<uint16_t>(code + 1)});
    const auto tie = std::bit_cast<uint32_t>((low + high) / 2);
    for (const uint32_t sign : {0u, 0x80000000u})
      for (const uint32_t bits : {tie - 1, tie, tie + 1}) check(bits | sign);
  }
}

TEST(Dtype, Bf16_rounds_to_the_nearest_and_ties_to_even) {
  // closed form: bf16 is the upper half of f32, so the lower half alone decides
  for (uint32_t high = 0; high < 65536; high += 13) {
    const auto base = std::bit_cast<float>(high << 16);
    if (std::isnan(base)) {
      EXPECT_TRUE(std::isnan(to_f32(to_bf16(base))));
      continue;
    }
    if (std::isinf(base)) {
      EXPECT_EQ(to_bf16(base).bits, high);
      continue;
    }
    const uint32_t even_up = high + (high & 1);
    EXPECT_EQ(to_bf16(base).bits, high);
    EXPECT_EQ(to_bf16(std::bit_cast<float>(high << 16 | 0x7fff)).bits, high);
    EXPECT_EQ(to_bf16(std::bit_cast<float>(high << 16 | 0x8000)).bits, even_up);
    EXPECT_EQ(to_bf16(std::bit_cast<float>(high << 16 | 0x8001)).bits, high + 1);
  }
  // a NaN whose payload lies in the lower half only must not become infinity
  EXPECT_TRUE(std::isnan(to_f32(to_bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(to_f32(to_bf16(std::bit_cast<float>(0xffffffffu)))));
}

TEST(Dtype, Integers_and_bool_convert_as_numbers) {
  const int8_t i8[] = {-128, -1, 0, 127};
  const int64_t i64[] = {-(int64_t{1} << 53), 0, int64_t{1} << 53};
  const uint8_t truth[] = {0, 1, 255};
  double out[4];
  convert(i8, DType::kI8, out, DType::kF64, 4);
  EXPECT_EQ(std::vector<double>(out, out + 4), (std::vector<double>{-128, -1, 0, 127}));
  convert(i64, DType::kI64, out, DType::kF64, 3);
  EXPECT_EQ(std::vector<double>(out, out + 3), (std::vector<double>{-9007199254740992., 0, 9007199254740992.}));
  convert(truth, DType::kBool, out, DType::kF64, 3);
  EXPECT_EQ(std::vector<double>(out, out + 3), (std::vector<double>{0, 1, 1}));
}

TEST(Dtype, Names_lead_back_to_their_type) {
  for (int i = 0; i <= static_cast<int>(DType::kF8E5M2); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
    EXPECT_EQ(dtype_from_safetensors(safetensors_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_from_name("torch.bfloat16"), DType::kBF16);
  EXPECT_EQ(dtype_from_name("half"), DType::kF16);
  EXPECT_EQ(dtype_from_name("BF16"), std::nullopt);
  EXPECT_EQ(dtype_from_safetensors("bf16"), std::nullopt);
  EXPECT_EQ(dtype_from_safetensors("F4"), std::nullopt);
}

}  // namespace
}  // namespace pmetal
