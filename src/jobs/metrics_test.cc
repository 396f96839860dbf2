#include "jobs/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/testing.h"

namespace pmetal::jobs {
namespace {

using Json = nlohmann::ordered_json;

TEST(Metrics, Time_is_rfc_3339_in_utc) {
  EXPECT_EQ(rfc3339(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(rfc3339(1700000000.5), "2023-11-14T22:13:20.500Z");  // date -u -d @1700000000
}

TEST(Metrics, Lines_of_a_run_in_order_and_appended_on_resume) {
  const auto folder = pmetal::testing_support::scratch_dir("metrics");
  const std::string path = folder / "m.jsonl";
  const auto clock = [] { return 1700000000.0; };
  constexpr int kSteps = 5000;
  {
    MetricsWriter writer(path, clock);
    writer.train_start("run", R"({"lora_r":16})");
    for (int i = 1; i <= kSteps; ++i) {
      StepMetric step;
      step.step = i;
      step.loss = i == 2 ? NAN : 1.0 / i;
      step.grad_norm = 0.5;
      writer.step(step);
    }
    writer.checkpoint_saved("out/step_1");
    writer.close();
  }
  {
    MetricsWriter writer(path, clock);
    writer.evaluation({7, 2.0, std::exp(2.0), std::nullopt, {}});
    writer.event("lr_action", {{"factor", 0.5}}, "plateau");
    writer.train_end(kSteps, 100, 0.1);
  }  // the destructor writes the rest
  std::istringstream file(read_text(path));
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(Json::parse(line));
  ASSERT_EQ(lines.size(), kSteps + 5u);
  EXPECT_EQ(lines[0]["event"], "train_start");
  EXPECT_EQ(lines[0]["config"]["lora_r"], 16);
  for (int i = 1; i <= kSteps; ++i) ASSERT_EQ(lines[i]["step"], i);
  EXPECT_FALSE(lines[1].contains("event"));
  EXPECT_EQ(lines[1]["split"], "train");
  EXPECT_EQ(lines[1]["timestamp"], "2023-11-14T22:13:20.000Z");
  EXPECT_TRUE(lines[2]["loss"].is_null());
  EXPECT_EQ(lines[2]["nonfinite"], Json::parse(R"(["loss"])"));
  EXPECT_EQ(lines[kSteps + 1]["path"], "out/step_1");
  EXPECT_EQ(lines[kSteps + 2]["split"], "eval");
  EXPECT_EQ(lines[kSteps + 3]["detail"], "plateau");
  EXPECT_EQ(lines[kSteps + 4]["event"], "train_end");
  std::filesystem::remove_all(folder);
}

TEST(Metrics, A_full_disk_is_reported) {
  MetricsWriter writer("/dev/full");
  writer.checkpoint_saved("x");
  EXPECT_THROW(writer.close(), Error);
  EXPECT_THROW(MetricsWriter("/proc/none/m.jsonl"), Error);
}

}  // namespace
}  // namespace pmetal::jobs
