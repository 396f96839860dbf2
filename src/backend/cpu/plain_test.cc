#include "backend/cpu/plain.h"

#include <gtest/gtest.h>

namespace pmetal::cpu {
namespace {

TEST(Exp_of, Lies_within_one_ulp_of_the_exact_value) {
  double worst = 0;
  for (double x = -87; x < 88; x += 0.0037) {
    const float f = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(f));
    const float near = static_cast<float>(exact);
    const double ulp = static_cast<double>(std::nextafter(near, INFINITY)) - static_cast<double>(near);
    worst = std::max(worst, std::abs(static_cast<double>(exp_of(f)) - exact) / ulp);
  }
  EXPECT_LT(worst, 1);
}

TEST(Exp_of, Ends) {
  EXPECT_EQ(exp_of(0.f), 1);
  EXPECT_EQ(exp_of(-INFINITY), 0);
  EXPECT_EQ(exp_of(-200.f), 0);
  EXPECT_EQ(exp_of(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(exp_of(NAN)));
  EXPECT_GT(exp_of(-103.f), 0);  // denormal
}

}  // namespace
}  // namespace pmetal::cpu
