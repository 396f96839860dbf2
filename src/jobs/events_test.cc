#include "jobs/events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/testing.h"

namespace pmetal::jobs {
namespace {

// the field names are those of the surface, 4.1
TEST(Events, Lines_carry_the_fields_of_the_format) {
  EXPECT_EQ(to_json_line({"j1", 1700000000, StartedEvent{"train"}}),
            R"({"event":"started","job_id":"j1","kind":"train","schema":1,"ts":1700000000})");
  EXPECT_EQ(to_json_line({"j1", 5, PhaseEvent{"training"}}),
            R"({"event":"phase","job_id":"j1","phase":{"phase":"training"},"ts":5})");
  EXPECT_EQ(to_json_line({"j1", 5, TokenEvent{"hé", 3}}),
            R"({"event":"token","job_id":"j1","token":"hé","index":3,"ts":5})");
  EXPECT_EQ(to_json_line({"j1", 5, ProgressEvent{2, 10, "reading"}}),
            R"({"event":"progress","job_id":"j1","progress":{"current":2,"total":10,"label":"reading"},"ts":5})");
  EXPECT_EQ(to_json_line({"j1", 5, CancelledEvent{}}), R"({"event":"cancelled","job_id":"j1","ts":5})");
  EXPECT_EQ(
      to_json_line({"j1", 5, CompletedEvent{{1.5, 10, 2048, "out", {}}}}),
      R"({"event":"completed","job_id":"j1","summary":{"final_loss":1.5,"total_steps":10,"total_tokens":2048,"output_path":"out","extra":{}},"ts":5})");
}

TEST(Events, Step_leaves_out_what_is_unknown_and_writes_null_for_nan) {
  StepMetric step;
  step.step = 3;
  step.loss = NAN;
  const std::string line = to_json_line({"j", 1, step});
  EXPECT_THAT(line, ::testing::HasSubstr(R"("payload":{"kind":"step","step":3)"));
  EXPECT_THAT(line, ::testing::HasSubstr(R"("loss":null)"));
  EXPECT_THAT(line, ::testing::Not(::testing::HasSubstr("grad_norm")));
}

TEST(Events, The_file_is_appended_to_and_complete_after_each_event) {
  const auto folder = pmetal::testing_support::scratch_dir("events");
  const std::string path = folder / "e.jsonl";
  {
    JsonLinesSink sink(path);
    sink.emit({"a", 1, CancelledEvent{}});
    EXPECT_EQ(read_text(path), "{\"event\":\"cancelled\",\"job_id\":\"a\",\"ts\":1}\n");
  }
  JsonLinesSink sink(path);
  sink.emit({"b", 2, FailedEvent{"no\nluck"}});
  EXPECT_THAT(read_text(path),
              ::testing::EndsWith("{\"event\":\"failed\",\"job_id\":\"b\",\"error\":\"no\\nluck\",\"ts\":2}\n"));
  std::filesystem::remove_all(folder);
}

TEST(Events, A_full_disk_is_an_error) {
  JsonLinesSink sink("/dev/full");
  EXPECT_THROW(sink.emit({"a", 1, CancelledEvent{}}), Error);
  EXPECT_THROW(JsonLinesSink("/proc/none/e.jsonl"), Error);
}

}  // namespace
}  // namespace pmetal::jobs
