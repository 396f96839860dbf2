// Weights of every floating type a file can store. Values of the fp8 types from their definitions (OCP FP8, 2023).
#include "models/checkpoint.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/testing.h"
#include "formats/safetensors.h"

namespace pmetal::models {
namespace {

TEST(Checkpoint, Weights_of_every_floating_type_are_read) {
  const fs::path folder = testing_support::scratch_dir("checkpoint");
  write_file_atomic(folder / "config.json", R"({"model_type": "llama"})");
  struct Case {
    const char* name;
    DType dtype;
    std::vector<uint8_t> bytes;
    std::vector<float> values;
  };
  const std::vector<Case> cases = {
      // largest, smallest subnormal, one, minus one and a half
      {"e4m3", DType::kF8E4M3, {0x7e, 0x01, 0x38, 0xbc}, {448, 0x1p-9f, 1, -1.5f}},
      {"e5m2", DType::kF8E5M2, {0x7b, 0x01, 0x3c, 0xbe}, {57344, 0x1p-16f, 1, -1.5f}},
      {"f64", DType::kF64, {0, 0, 0, 0, 0, 0, 0xf8, 0xbf, 0, 0, 0, 0, 0, 0, 0xd0, 0x3f}, {-1.5f, 0.25f}},
      {"f16", DType::kF16, {0x00, 0x3c, 0x00, 0xbe}, {1, -1.5f}},
      {"bf16", DType::kBF16, {0x80, 0x3f, 0xc0, 0xbf}, {1, -1.5f}},
  };
  std::vector<formats::TensorDeclaration> declarations;
  for (const Case& c : cases) declarations.push_back({c.name, c.dtype, {1, static_cast<int64_t>(c.values.size())}});
  declarations.push_back({"ints", DType::kI32, {1, 1}});
  formats::SafetensorsWriter writer(folder / "model.safetensors", declarations);
  for (const formats::TensorDeclaration& d : writer.order()) {
    std::vector<uint8_t> bytes(4);
    for (const Case& c : cases)
      if (d.name == c.name) bytes = c.bytes;
    writer.write(d.name, std::as_bytes(std::span(bytes)));
  }
  writer.finish();
  const auto checkpoint = Checkpoint::open(folder.string());
  for (const Case& c : cases) {
    const auto n = static_cast<int64_t>(c.values.size());
    const quant::Weight w = checkpoint->matrix(c.name, 1, n);
    std::vector<float> row(c.values.size());
    w.format->decode_rows(w, 0, 1, row.data());
    EXPECT_EQ(row, c.values) << c.name;
    const Tensor v = checkpoint->vector(c.name, Shape{1, n}, DType::kF32);
    EXPECT_EQ(std::vector<float>(v.data<float>(), v.data<float>() + n), c.values) << c.name;
  }
  EXPECT_THROW(checkpoint->matrix("ints", 1, 1), Error);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace pmetal::models
