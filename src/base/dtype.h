// Plain element types, their sizes and names, and the conversions of the narrow floats.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pmetal {

enum class DType : uint8_t {
  kF32,
  kBF16,
  kF16,
  kF64,
  kI32,
  kI64,
  kU8,
  kI8,
  kI16,
  kU16,
  kU32,
  kU64,
  kBool,
  kF8E4M3,
  kF8E5M2
};

int64_t size_of(DType dtype);                                        // bytes of one element
std::string_view name_of(DType dtype);                               // "f32", "bf16", ... : flags, JSON, messages
std::string_view safetensors_name(DType dtype);                      // "F32", "BF16", "F8_E4M3", ...
std::optional<DType> dtype_from_safetensors(std::string_view name);  // nothing when unknown
std::optional<DType> dtype_from_name(std::string_view name);         // "bf16", "bfloat16", "torch.bfloat16", ...
bool is_floating(DType dtype);

// bf16 <-> f32, round to nearest even; NaN stays a (quiet) NaN
struct BF16 {
  uint16_t bits;
};
inline float to_f32(BF16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }
inline BF16 to_bf16(float value) {
  uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40)};
  u += 0x7fffu + ((u >> 16) & 1);
  return {static_cast<uint16_t>(u >> 16)};
}

struct F16 {
  uint16_t bits;
};
float to_f32(F16 value);
F16 to_f16(float value);  // round to nearest even, overflow to infinity

// OCP 8-bit floats. e4m3fn has no infinity (0x7f/0xff are NaN); casts do not saturate, as in PyTorch.
float f8e4m3_to_f32(uint8_t bits);
uint8_t f32_to_f8e4m3(float value);
float f8e5m2_to_f32(uint8_t bits);
uint8_t f32_to_f8e5m2(float value);

// n elements between any floating dtypes; also reads integers and bool as numbers
void convert(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n);

}  // namespace pmetal
