#include "base/dtype.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace pmetal {
namespace {

struct Row {
  DType dtype;
  int64_t size;
  std::string_view name, safetensors;
};
constexpr std::array<Row, 15> kRows = {{
    {DType::kF32, 4, "f32", "F32"},
    {DType::kBF16, 2, "bf16", "BF16"},
    {DType::kF16, 2, "f16", "F16"},
    {DType::kF64, 8, "f64", "F64"},
    {DType::kI32, 4, "i32", "I32"},
    {DType::kI64, 8, "i64", "I64"},
    {DType::kU8, 1, "u8", "U8"},
    {DType::kI8, 1, "i8", "I8"},
    {DType::kI16, 2, "i16", "I16"},
    {DType::kU16, 2, "u16", "U16"},
    {DType::kU32, 4, "u32", "U32"},
    {DType::kU64, 8, "u64", "U64"},
    {DType::kBool, 1, "bool", "BOOL"},
    {DType::kF8E4M3, 1, "f8_e4m3", "F8_E4M3"},
    {DType::kF8E5M2, 1, "f8_e5m2", "F8_E5M2"},
}};

const Row& row(DType dtype) { return kRows[static_cast<size_t>(dtype)]; }

// One narrow float by its parameters. Rounds to nearest even from f32; subnormals kept.
template <int kExpBits, int kManBits, bool kHasInf>
uint8_t narrow(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  constexpr int kBias = (1 << (kExpBits - 1)) - 1;
  constexpr uint8_t kNan = kHasInf ? 0x7f : (1 << (kExpBits + kManBits)) - 1;
  constexpr uint8_t kInf = ((1 << kExpBits) - 1) << kManBits;
  if (std::isnan(value)) return sign | kNan;
  const double a = std::fabs(static_cast<double>(value));
  if (std::isinf(value)) return sign | (kHasInf ? kInf : kNan);
  int exponent = 0;
  std::frexp(a, &exponent);  // a = f * 2^exponent, f in [0.5, 1)
  const int e = std::max(exponent - 1, 1 - kBias);
  const double step = std::ldexp(1.0, e - kManBits);
  const double rounded = std::nearbyint(a / step) * step;
  if (rounded == 0) return sign;
  std::frexp(rounded, &exponent);
  const int re = std::max(exponent - 1, 1 - kBias);
  const int code_exp = rounded < std::ldexp(1.0, 1 - kBias) ? 0 : re + kBias;
  const double mantissa = code_exp == 0 ? rounded / std::ldexp(1.0, 1 - kBias - kManBits)
                                        : (rounded / std::ldexp(1.0, re) - 1) * (1 << kManBits);
  const int code = (code_exp << kManBits) + static_cast<int>(mantissa);
  const int largest = kHasInf ? kInf - 1 : kNan - 1;
  if (code > largest) return sign | (kHasInf ? kInf : kNan);
  return sign | static_cast<uint8_t>(code);
}

template <int kExpBits, int kManBits, bool kHasInf>
float widen(uint8_t bits) {
  constexpr int kBias = (1 << (kExpBits - 1)) - 1;
  const int e = (bits >> kManBits) & ((1 << kExpBits) - 1);
  const int m = bits & ((1 << kManBits) - 1);
  const float sign = bits & 0x80 ? -1.f : 1.f;
  if (kHasInf && e == (1 << kExpBits) - 1)
    return m ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
  if (!kHasInf && (bits & 0x7f) == (1 << (kExpBits + kManBits)) - 1) return std::numeric_limits<float>::quiet_NaN();
  if (e == 0) return sign * std::ldexp(static_cast<float>(m), 1 - kBias - kManBits);
  return sign * std::ldexp(1.f + static_cast<float>(m) / (1 << kManBits), e - kBias);
}

template <class T>
T load(const void* p, int64_t i) {
  T v;
  std::memcpy(&v, static_cast<const char*>(p) + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return v;
}
template <class T>
void store(void* p, int64_t i, T v) {
  std::memcpy(static_cast<char*>(p) + i * static_cast<int64_t>(sizeof(T)), &v, sizeof(T));
}

double load_any(const void* p, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kF32: return load<float>(p, i);
    case DType::kBF16: return to_f32(load<BF16>(p, i));
    case DType::kF16: return to_f32(load<F16>(p, i));
    case DType::kF64: return load<double>(p, i);
    case DType::kI32: return load<int32_t>(p, i);
    case DType::kI64: return static_cast<double>(load<int64_t>(p, i));
    case DType::kU8: return load<uint8_t>(p, i);
    case DType::kI8: return load<int8_t>(p, i);
    case DType::kI16: return load<int16_t>(p, i);
    case DType::kU16: return load<uint16_t>(p, i);
    case DType::kU32: return load<uint32_t>(p, i);
    case DType::kU64: return static_cast<double>(load<uint64_t>(p, i));
    case DType::kBool: return load<uint8_t>(p, i) ? 1 : 0;
    case DType::kF8E4M3: return f8e4m3_to_f32(load<uint8_t>(p, i));
    case DType::kF8E5M2: return f8e5m2_to_f32(load<uint8_t>(p, i));
  }
  return 0;
}

void store_any(void* p, DType dtype, int64_t i, double v) {
  switch (dtype) {
    case DType::kF32: return store(p, i, static_cast<float>(v));
    case DType::kBF16: return store(p, i, to_bf16(static_cast<float>(v)));
    case DType::kF16: return store(p, i, to_f16(static_cast<float>(v)));
    case DType::kF64: return store(p, i, v);
    case DType::kF8E4M3: return store(p, i, f32_to_f8e4m3(static_cast<float>(v)));
    case DType::kF8E5M2: return store(p, i, f32_to_f8e5m2(static_cast<float>(v)));
    default: break;
  }
  PMETAL_ASSERT(false, "convert to {} is not a floating conversion", name_of(dtype));
}

}  // namespace

int64_t size_of(DType dtype) { return row(dtype).size; }
std::string_view name_of(DType dtype) { return row(dtype).name; }
std::string_view safetensors_name(DType dtype) { return row(dtype).safetensors; }

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const Row& r : kRows)
    if (r.safetensors == name) return r.dtype;
  return std::nullopt;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  if (name.starts_with("torch.")) name.remove_prefix(6);
  if (name == "float32" || name == "float") return DType::kF32;
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float16" || name == "half") return DType::kF16;
  if (name == "float64" || name == "double") return DType::kF64;
  for (const Row& r : kRows)
    if (r.name == name) return r.dtype;
  return std::nullopt;
}

bool is_floating(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF64:
    case DType::kF8E4M3:
    case DType::kF8E5M2: return true;
    default: return false;
  }
}

float to_f32(F16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t e = (value.bits >> 10) & 31, m = value.bits & 1023;
  if (e == 31) return std::bit_cast<float>(sign | 0x7f800000u | (m << 13) | (m ? 0x400000u : 0));
  if (e == 0) return std::copysign(std::ldexp(static_cast<float>(m), -24), std::bit_cast<float>(sign | 0x3f800000u));
  return std::bit_cast<float>(sign | ((e + 112) << 23) | (m << 13));
}

F16 to_f16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000);
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (a >= 0x47800000u) return {static_cast<uint16_t>(sign | 0x7c00)};  // >= 65536 or infinity
  if (a < 0x38800000u) {                                                // subnormal or zero
    const float scaled = std::bit_cast<float>(a) * 16777216.f;          // exact: times 2^24
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)))};
  }
  const uint32_t rounded = a + 0xfffu + ((a >> 13) & 1);
  return {static_cast<uint16_t>(sign | static_cast<uint16_t>((rounded - 0x38000000u) >> 13))};
}

float f8e4m3_to_f32(uint8_t bits) { return widen<4, 3, false>(bits); }
uint8_t f32_to_f8e4m3(float value) { return narrow<4, 3, false>(value); }
float f8e5m2_to_f32(uint8_t bits) { return widen<5, 2, true>(bits); }
uint8_t f32_to_f8e5m2(float value) { return narrow<5, 2, true>(value); }

void convert(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) {
  if (n <= 0) return;  // pointers of empty ranges may be null
  if (from_dtype == to_dtype) {
    std::memcpy(to, from, static_cast<size_t>(n * size_of(from_dtype)));
    return;
  }
  if (from_dtype == DType::kBF16 && to_dtype == DType::kF32) {
    for (int64_t i = 0; i < n; ++i) store(to, i, to_f32(load<BF16>(from, i)));
    return;
  }
  if (from_dtype == DType::kF32 && to_dtype == DType::kBF16) {
    for (int64_t i = 0; i < n; ++i) store(to, i, to_bf16(load<float>(from, i)));
    return;
  }
  for (int64_t i = 0; i < n; ++i) store_any(to, to_dtype, i, load_any(from, from_dtype, i));
}

}  // namespace pmetal
