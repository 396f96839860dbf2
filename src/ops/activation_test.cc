#include "ops/activation.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "base/testing.h"
#include "ops/test_support.h"

namespace pmetal::ops {
namespace {

using namespace testing_support;

// tensors of a safetensors file with f32 tensors alone, read by hand: formats/ is not ours to use
std::vector<float> fixture(const std::string& name) {
  std::ifstream file(data_dir() / "numerics" / "activations.safetensors", std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  const std::string json = bytes.substr(8, header);
  const size_t at = json.find("data_offsets", json.find("\"" + name + "\":"));
  const size_t open = json.find('[', at), comma = json.find(',', open);
  const size_t begin = std::strtoull(json.c_str() + open + 1, nullptr, 10);
  const size_t end = std::strtoull(json.c_str() + comma + 1, nullptr, 10);
  std::vector<float> values((end - begin) / 4);
  std::memcpy(values.data(), bytes.data() + 8 + header + begin, end - begin);
  return values;
}

TEST(Activate, Equals_the_reference_library) {
  Context ctx = make_context();
  const std::vector<float> x = fixture("x");
  ASSERT_EQ(x.size(), 481u);
  const Tensor input = floats_of(x, {13, 37});
  for (const char* name : {"silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu", "relu2", "quick_gelu"}) {
    const std::vector<float> expected = fixture(name);
    const std::vector<double> got = values_of(activate(ctx, input, parse_activation(name)));
    for (size_t i = 0; i < x.size(); ++i)
      EXPECT_NEAR(got[i], expected[i], 2e-6 * std::max(1.f, std::abs(expected[i]))) << name << " of " << x[i];
  }
  for (const auto& [name, op] : {std::pair{"sigmoid", Unary::kSigmoid},
                                 {"tanh", Unary::kTanh},
                                 {"silu", Unary::kSilu},
                                 {"gelu", Unary::kGelu},
                                 {"relu", Unary::kRelu}}) {
    const std::vector<float> expected = fixture(name);
    const std::vector<double> got = values_of(unary(ctx, input, op));
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-6 * std::max(1.f, std::abs(expected[i])));
  }
}

TEST(Glu, Multiplies_and_takes_strided_rows_and_zero_rows) {
  Context ctx = make_context();
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  const Tensor both = random_tensor(rng, {5, 2 * 1027});
  const Tensor gate = both.narrowed(1, 0, 1027), up = both.narrowed(1, 1027, 1027);
  const std::vector<double> y = values_of(glu(ctx, gate, up, Activation::kSilu)), g = values_of(gate),
                            u = values_of(up);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], g[i] / (1 + std::exp(-g[i])) * u[i], 1e-5);
  EXPECT_EQ(glu(ctx, both.narrowed(0, 0, 0), both.narrowed(0, 0, 0), Activation::kSilu).numel(), 0);
}

TEST(Glu, Rounds_bf16_once) {
  Context ctx = make_context();
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  const Tensor gate = random_tensor(rng, {7, 33}, DType::kBF16), up = random_tensor(rng, {7, 33}, DType::kBF16);
  const std::vector<double> narrow = values_of(glu(ctx, gate, up, Activation::kGelu));
  const std::vector<double> wide =
      values_of(glu(ctx, converted(gate, DType::kF32), converted(up, DType::kF32), Activation::kGelu));
  for (size_t i = 0; i < wide.size(); ++i)
    EXPECT_EQ(narrow[i], static_cast<double>(to_f32(to_bf16(static_cast<float>(wide[i])))));
}

TEST(Parse_activation, Names_the_known_ones) {
  EXPECT_EQ(parse_activation("swish"), Activation::kSilu);
  try {
    parse_activation("mish");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("gelu_pytorch_tanh"), std::string::npos);
  }
}

}  // namespace
}  // namespace pmetal::ops
