#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "app/cli/chart.h"
#include "app/cli/help.h"
#include "app/cli/parse.h"
#include "app/cli/progress.h"
#include "base/testing.h"
#include "jobs/specs/train.h"
#include "jobs/testing.h"

namespace pmetal::jobs {
extern const JobSpec spec_train;
extern const JobSpec spec_infer;
extern const JobSpec spec_inspect;
}  // namespace pmetal::jobs

namespace pmetal::app {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string complaint(const jobs::JobSpec& spec, std::vector<std::string> words) {
  try {
    parse_command_line(spec, words);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return {};
}

TEST(CommandLine, Argv_gives_the_same_values_back_for_every_command) {
  for (const jobs::JobSpec* spec : jobs::all_specs()) {
    jobs::testing_support::RandomOptions random(4);
    for (int round = 0; round < 200; ++round) {
      const jobs::JobOptions options = random.make(*spec);
      const std::vector<std::string> words = jobs::to_argv(options);
      const CommandLine line = parse_command_line(*spec, words);
      ASSERT_EQ(jobs::to_json(line.options), jobs::to_json(options))
          << spec->name << ": " << fmt::format("{}", fmt::join(words, " | "));
    }
  }
}

TEST(CommandLine, Values_come_as_next_word_or_after_equals_and_may_look_like_flags) {
  const CommandLine line = parse_command_line(
      jobs::spec_infer, std::vector<std::string>{"-m", "x", "--prompt", "--what", "--frequency-penalty", "-1.5",
                                                 "--stop", "a,b", "--stop", "c", "--interactive=false", "--json"});
  const jobs::Json json = jobs::to_json(line.options);
  EXPECT_EQ(json["prompt"], "--what");
  EXPECT_EQ(json["frequency_penalty"], -1.5);
  EXPECT_EQ(json["stop"], jobs::Json::parse(R"(["a","b","c"])"));
  EXPECT_EQ(json["interactive"], false);
  EXPECT_TRUE(line.json);
}

TEST(CommandLine, A_bare_word_is_the_positional_field) {
  const CommandLine line = parse_command_line(jobs::spec_inspect, std::vector<std::string>{"./model", "--tensors"});
  EXPECT_EQ(jobs::to_json(line.options)["model"], "./model");
}

TEST(CommandLine, Mistakes_name_the_flag_and_the_nearest_one) {
  EXPECT_THAT(complaint(jobs::spec_train, {"--lorar", "4"}),
              HasSubstr("unknown flag --lorar; did you mean \"--lora-r\"?"));
  EXPECT_THAT(complaint(jobs::spec_train, {"--lora-r", "many"}),
              HasSubstr("--lora-r: expected an integer, got \"many\""));
  EXPECT_THAT(complaint(jobs::spec_train, {"--lora-r"}), HasSubstr("--lora-r"));
  EXPECT_THAT(complaint(jobs::spec_train, {"--epochs", "1", "--epochs", "2"}), HasSubstr("--epochs"));
  EXPECT_THAT(complaint(jobs::spec_train, {"--dtype", "f33"}), HasSubstr("did you mean \"f32\"?"));
  EXPECT_THAT(complaint(jobs::spec_train, {"stray"}), HasSubstr("\"stray\" is not expected here"));
  EXPECT_THAT(complaint(jobs::spec_train, {"--rslora=maybe"}), HasSubstr("rslora"));
}

TEST(CommandLine, Flags_without_meaning_here_are_refused_with_the_replacement) {
  EXPECT_THAT(complaint(jobs::spec_train, {"--ane"}),
              HasSubstr("--ane: there is no Neural Engine here: use `--device cpu`"));
  for (const jobs::JobSpec* spec : jobs::all_specs())
    for (const jobs::RefusedFlag& refused : spec->refused)
      EXPECT_THAT(complaint(*spec, {std::string(refused.flag)}), HasSubstr(std::string(refused.text)));
}

TEST(CommandLine, A_given_flag_wins_over_yaml_even_when_it_equals_the_default) {
  const auto folder = pmetal::testing_support::scratch_dir("cli");
  const std::string path = folder / "c.yaml";
  std::ofstream(path) << "lora_r: 8\nlora: {alpha: 5}\nrslora: true\n";
  const CommandLine line = parse_command_line(
      jobs::spec_train, std::vector<std::string>{"--config", path, "--lora-r", "16", "--rslora=false"});
  const auto& options = line.options.as<jobs::TrainOptions>();
  EXPECT_EQ(options.lora_r, 16);
  EXPECT_EQ(options.lora_alpha, 5);
  EXPECT_FALSE(options.rslora);
  EXPECT_EQ(options.epochs, 1);
  std::filesystem::remove_all(folder);
}

TEST(Help, Every_flag_of_every_command_is_in_its_help_with_an_example) {
  for (const jobs::JobSpec* spec : jobs::all_specs()) {
    const std::string help = command_help(*spec);
    for (const jobs::FieldDescriptor& field : spec->fields) {
      EXPECT_THAT(help, HasSubstr(jobs::flag_of(field)));
    }
    EXPECT_THAT(help, HasSubstr("\n  pmetal " + std::string(spec->name)));
    for (std::istringstream lines(help); !lines.eof();) {
      std::string line;
      std::getline(lines, line);
      EXPECT_LE(line.size(), 140u) << line;
    }
  }
}

TEST(Help, Every_example_is_accepted) {
  for (const jobs::JobSpec* spec : jobs::all_specs()) {
    std::istringstream examples{std::string(spec->examples)};
    for (std::string example; std::getline(examples, example);) {
      std::vector<std::string> words;
      std::string word;
      bool in_quotes = false;
      for (const char c : example + " ") {
        if (c == '\'')
          in_quotes = !in_quotes;
        else if (c == ' ' && !in_quotes)
          words.push_back(std::exchange(word, {}));
        else
          word += c;
      }
      std::istringstream name{std::string(spec->name)};
      for (std::string part; name >> part; words.erase(words.begin())) ASSERT_EQ(words[0], part);
      // redirections are the shell's
      words.erase(std::find_if(words.begin(), words.end(), [](const std::string& w) { return w == "<" || w == ">"; }),
                  words.end());
      if (std::find(words.begin(), words.end(), "--config") != words.end()) continue;  // names a file of the reader's
      const CommandLine line = parse_command_line(*spec, words);
      EXPECT_NO_THROW(jobs::require_valid(line.options)) << example;
    }
  }
}

TEST(Chart, A_straight_line_falls_from_the_top_left_to_the_bottom_right) {
  std::vector<ChartPoint> points;
  for (int i = 0; i <= 15; ++i) points.push_back({double(i), 15.0 - i});
  // 8 x 4 characters are 16 x 16 dots: dot column k holds rows k - 1 and k. The first cell has (0,0), (1,0), (1,1),
  // bits 0x01 | 0x08 | 0x10; the second (2,1), (2,2), (3,2), (3,3), bits 0x02 | 0x04 | 0x20 | 0x80; the third (4,3),
  // 0x40
  const std::string chart = braille_chart("t", points, 8, 4);
  EXPECT_THAT(chart, HasSubstr("15 ┤\u2819\u28A6\u2840"));
  EXPECT_EQ(braille_chart("t", std::span(points).first(1), 8, 4), "");
}

struct Screen {
  std::ostringstream people, data;
  std::chrono::steady_clock::time_point time{};
  Terminal terminal(bool is_tty, bool has_color) {
    Terminal t;
    t.is_tty = is_tty;
    t.has_color = has_color;
    t.width = [this] { return width; };
    t.now = [this] { return time; };
    return t;
  }
  int width = 80;
};

jobs::JobEvent step_event(int64_t step, int64_t total, double loss) {
  jobs::StepMetric metric;
  metric.step = step;
  metric.total_steps = total;
  metric.loss = loss;
  metric.tok_sec = 1000;
  metric.mem_gb = 1.25;
  return {"j", 0, metric};
}

TEST(Progress, On_a_terminal_one_line_is_redrawn_within_the_width_of_the_moment) {
  Screen screen;
  ProgressRenderer renderer(screen.terminal(true, false), screen.people, screen.data);
  renderer.emit(step_event(1, 11, 3));
  screen.time += std::chrono::seconds(2);
  screen.width = 20;
  renderer.emit(step_event(2, 11, 2.5));
  EXPECT_THAT(screen.people.str(), HasSubstr("\rstep 1/11 · loss 3.0000 · 1000 tokens/s · 1.25 GB"));
  EXPECT_THAT(screen.people.str(), HasSubstr("\rstep 2/11 · loss 2.\x1b[K"));
  EXPECT_THAT(screen.people.str(), Not(HasSubstr("\n")));
  EXPECT_THAT(screen.people.str(), Not(HasSubstr("\x1b[36m")));
}

TEST(Progress, The_remaining_time_comes_from_the_steps_seen_so_far) {
  Screen screen;
  ProgressRenderer renderer(screen.terminal(true, true), screen.people, screen.data);
  renderer.emit(step_event(100, 200, 3));  // resumed at 100
  screen.time += std::chrono::seconds(10);
  renderer.emit(step_event(101, 200, 3));
  EXPECT_THAT(screen.people.str(), HasSubstr("ETA 16:30"));  // 99 steps of 10 s
  EXPECT_THAT(screen.people.str(), HasSubstr("\x1b[36m"));
}

TEST(Progress, Without_a_terminal_lines_come_at_intervals_and_the_chart_at_the_end) {
  Screen screen;
  ProgressRenderer renderer(screen.terminal(false, false), screen.people, screen.data);
  for (int i = 1; i <= 25; ++i) {
    renderer.emit(step_event(i, 25, 5.0 / i));
    screen.time += std::chrono::seconds(1);
  }
  jobs::JobSummary summary;
  summary.total_steps = 25;
  renderer.emit({"j", 0, jobs::CompletedEvent{summary}});
  const std::string text = screen.people.str();
  EXPECT_THAT(text, HasSubstr("step 1/25"));
  EXPECT_THAT(text, Not(HasSubstr("step 2/25")));
  EXPECT_THAT(text, HasSubstr("step 11/25"));
  EXPECT_THAT(text, HasSubstr("step 25/25"));
  EXPECT_THAT(text, HasSubstr("loss by step"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_EQ(screen.data.str(), "");
}

TEST(Progress, A_second_training_has_its_own_clock_and_goes_on_in_the_chart) {
  Screen screen;
  ProgressRenderer renderer(screen.terminal(false, false), screen.people, screen.data);
  renderer.emit({"j", 0, jobs::PhaseEvent{"training", "pretraining"}});
  for (int i = 1; i <= 20; ++i) {
    renderer.emit(step_event(i, 20, 5.0 / i));
    screen.time += std::chrono::seconds(100);
  }
  screen.people.str("");
  renderer.emit({"j", 0, jobs::PhaseEvent{"training", "fine-tuning"}});
  renderer.emit(step_event(1, 11, 3));
  screen.time += std::chrono::seconds(10);
  renderer.emit(step_event(2, 11, 3));
  renderer.emit({"j", 0, jobs::CompletedEvent{{}}});
  EXPECT_THAT(screen.people.str(), HasSubstr("step 2/11 · loss 3.0000 · 1000 tokens/s · ETA 1:30"));  // 9 steps of 10 s
  EXPECT_THAT(screen.people.str(), HasSubstr("loss by step; the last training begins at 21"));
  EXPECT_THAT(screen.people.str(), HasSubstr(" 22\n"));  // the end of the axis
}

TEST(Progress, A_custom_phase_is_shown_by_its_detail) {
  Screen screen;
  ProgressRenderer renderer(screen.terminal(false, false), screen.people, screen.data);
  renderer.emit({"j", 0, jobs::PhaseEvent{"custom", "writing text"}});
  EXPECT_EQ(screen.people.str(), "writing text\n");
}

TEST(Progress, Generated_text_goes_to_the_data_stream_whole) {
  Screen screen;
  ProgressRenderer renderer(screen.terminal(true, false), screen.people, screen.data);
  renderer.emit({"j", 0, jobs::PhaseEvent{"loading_model"}});
  renderer.emit({"j", 0, jobs::TokenEvent{"Hel", 0}});
  renderer.emit({"j", 0, jobs::TokenEvent{"lo", 1}});
  renderer.emit({"j", 0, jobs::InferenceDone{2, 10, 5, "cpu"}});
  EXPECT_EQ(screen.data.str(), "Hello\n");
  EXPECT_THAT(screen.people.str(), HasSubstr("2 tokens, 10.0 tokens/s, first token after 5 ms, cpu"));
}

TEST(Progress, Log_lines_cannot_move_the_cursor) {
  Screen screen;
  ProgressRenderer renderer(screen.terminal(false, false), screen.people, screen.data);
  renderer.emit({"j", 0, jobs::LogEvent{jobs::LogLevel::kWarn, "odd \x1b[2J\nname"}});
  EXPECT_EQ(screen.people.str(), "warn: odd  [2J name\n");
}

}  // namespace
}  // namespace pmetal::app
