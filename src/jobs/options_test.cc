#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include <nlohmann/json.hpp>

#include "jobs/spec.h"
#include "jobs/specs/train.h"
#include "jobs/testing.h"

namespace pmetal::jobs {
extern const JobSpec spec_train;
extern const JobSpec spec_infer;
extern const JobSpec spec_probe;

namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing_support::RandomOptions;

constexpr int kRounds = 200;

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(Options, Json_gives_the_same_values_back_for_every_command) {
  ASSERT_GE(all_specs().size(), 11u);
  for (const JobSpec* spec : all_specs()) {
    RandomOptions random(1);
    for (int round = 0; round < kRounds; ++round) {
      const JobOptions options = random.make(*spec);
      JobOptions back(*spec);
      apply_json(back, Json::parse(to_json(options).dump()), "test");
      ASSERT_EQ(to_json(back), to_json(options)) << spec->name;
    }
  }
}

TEST(Options, Yaml_gives_the_same_values_back_for_every_command) {
  for (const JobSpec* spec : all_specs()) {
    RandomOptions random(2);
    for (int round = 0; round < kRounds; ++round) {
      const JobOptions options = random.make(*spec);
      JobOptions back(*spec);
      const std::string yaml = to_yaml(options);
      apply_yaml_text(back, yaml, "test.yaml");
      ASSERT_EQ(to_json(back), to_json(options)) << spec->name << "\n" << yaml;
    }
  }
}

TEST(Options, Random_values_within_the_bounds_have_no_bound_issue) {
  for (const JobSpec* spec : all_specs()) {
    RandomOptions random(3);
    for (int round = 0; round < kRounds; ++round)
      for (const FieldIssue& issue : random.make(*spec).normalize())
        EXPECT_THAT(issue.message, ::testing::Not(HasSubstr("must be 0.."))) << spec->name << " " << issue.field;
  }
}

TEST(Options, Every_description_is_complete_and_unambiguous) {
  for (const JobSpec* spec : all_specs()) {
    EXPECT_FALSE(spec->summary.empty());
    EXPECT_EQ(spec->examples.substr(0, spec->name.size()), spec->name);
    std::set<std::string> flags = {"--help", "--json", "--dry-run", "--config", "--log-events"}, places;
    std::set<char> letters = {'h', 'c'};
    for (const FieldDescriptor& field : spec->fields) {
      EXPECT_FALSE(field.help.empty()) << field.name;
      EXPECT_FALSE(field.group.empty()) << field.name;
      EXPECT_TRUE(flags.insert(flag_of(field)).second) << spec->name << " " << field.name;
      for (const std::string_view alias : split_commas(field.aliases))
        EXPECT_TRUE(flags.insert(std::string(alias)).second) << spec->name << " " << alias;
      for (const std::string_view place : split_commas(field.places))
        EXPECT_TRUE(places.insert(std::string(place)).second) << spec->name << " " << place;
      if (field.short_flag != 0) {
        EXPECT_TRUE(letters.insert(field.short_flag).second) << spec->name << " " << field.name;
      }
      EXPECT_EQ(field.kind == FieldKind::kEnum, field.access->type == ValueType::kEnum) << field.name;
      EXPECT_EQ(field.kind == FieldKind::kEnum, !field.options.empty()) << field.name;
    }
    for (const RefusedFlag& refused : spec->refused)
      EXPECT_EQ(flags.count(std::string(refused.flag)), 0u) << refused.flag;
  }
}

TEST(Options, Defaults_lie_within_their_bounds) {
  for (const JobSpec* spec : all_specs())
    for (const FieldIssue& issue : JobOptions(*spec).normalize())
      EXPECT_THAT(issue.message, AnyOf(HasSubstr("required"), HasSubstr("give either")))
          << spec->name << " " << issue.field;
}

// surface.md 2.1
TEST(Options, Train_has_the_defaults_of_the_surface) {
  const Json defaults = to_json(JobOptions(spec_train));
  EXPECT_EQ(defaults["output_dir"], "./output");
  EXPECT_EQ(defaults["lora_r"], 16);
  EXPECT_EQ(defaults["lora_alpha"], 32);
  EXPECT_EQ(defaults["learning_rate"], 2e-4);
  EXPECT_EQ(defaults["batch_size"], 1);
  EXPECT_EQ(defaults["epochs"], 1);
  EXPECT_EQ(defaults["max_seq_len"], 0);
  EXPECT_EQ(defaults["gradient_accumulation_steps"], 4);
  EXPECT_EQ(defaults["max_grad_norm"], 1.0);
  EXPECT_EQ(defaults["warmup_steps"], 0);
  EXPECT_EQ(defaults["weight_decay"], 0.01);
  EXPECT_EQ(defaults["lr_schedule"], "cosine");
  EXPECT_EQ(defaults["seed"], 42);
  EXPECT_EQ(defaults["column_separator"], "\n\n");
}

TEST(Options, Unknown_keys_name_the_nearest_valid_one) {
  JobOptions options(spec_train);
  EXPECT_EQ(error_of([&] { apply_json(options, Json::parse(R"({"lora_rr": 8})"), "job.json"); }),
            "job.json: unknown key \"lora_rr\"; did you mean \"lora_r\"?");
  EXPECT_EQ(error_of([&] { apply_yaml_text(options, "epochs: 2\nlerning_rate: 0.1\n", "a.yaml"); }),
            "a.yaml: unknown key \"lerning_rate\"; did you mean \"learning_rate\"?");
  EXPECT_EQ(error_of([&] { apply_yaml_text(options, "lora:\n  alhpa: 4\n", "a.yaml"); }),
            "a.yaml: unknown key \"lora.alhpa\"; did you mean \"alpha\"?");
  EXPECT_THAT(error_of([&] { apply_yaml_text(options, "modl:\n  dtype: f32\n", "a.yaml"); }), HasSubstr("\"model\"?"));
}

TEST(Options, Nested_yaml_of_the_training_file_sets_the_flat_fields) {
  JobOptions options(spec_train);
  apply_yaml_text(options,
                  "model: {model_id: ./m, dtype: bfloat16}\n"
                  "lora:\n  r: 8\n  alpha: 12.5\n  target_modules: [q_proj, v_proj]\n  use_dora: true\n"
                  "  init_lora_weights: true\n  bias: lora_only\n"
                  "training:\n  num_epochs: 3\n  lr_scheduler: wsd\n  use_packing: false\n  optimizer: adam_w\n"
                  "  max_steps: null\n  output_dir: out\n"
                  "dataset:\n  dataset_id: d.jsonl\n  shuffle: false\n  text_column: text\n",
                  "train.yaml");
  const auto& o = options.as<TrainOptions>();
  EXPECT_EQ(o.model, "./m");
  EXPECT_EQ(o.dtype, ComputeDtype::kBF16);
  EXPECT_EQ(o.lora_r, 8);
  EXPECT_EQ(o.lora_alpha, 12.5);
  EXPECT_THAT(o.target_modules, ::testing::ElementsAre("q_proj", "v_proj"));
  EXPECT_TRUE(o.dora);
  EXPECT_EQ(o.lora_bias, LoraBias::kLoraOnly);
  EXPECT_EQ(o.epochs, 3);
  EXPECT_EQ(o.lr_schedule, LrSchedule::kWsd);
  EXPECT_TRUE(o.no_sequence_packing);
  EXPECT_FALSE(o.max_steps.has_value());
  EXPECT_EQ(o.output_dir, "out");
  EXPECT_TRUE(o.no_shuffle);
  EXPECT_EQ(o.text_column, "text");
  EXPECT_TRUE(options.was_given("lora_r"));
  EXPECT_FALSE(options.was_given("batch_size"));
}

TEST(Options, Bad_values_are_refused_with_their_place) {
  const auto complaint = [](std::string_view yaml) {
    JobOptions options(spec_train);
    return error_of([&] { apply_yaml_text(options, yaml, "a.yaml"); });
  };
  EXPECT_EQ(complaint("epochs: many\n"), "a.yaml: epochs: expected an integer, got \"many\"");
  EXPECT_EQ(complaint("epochs: \"3\"\n"), "a.yaml: epochs: expected an integer, got \"3\"");
  EXPECT_EQ(complaint("training: {seed: 1.5}\n"),
            "a.yaml: training.seed: expected an integer from 0 to 2^64 - 1, got 1.5");
  EXPECT_THAT(complaint("epochs: 1\ntraining: {num_epochs: 2}\n"),
              HasSubstr("a.yaml: training.num_epochs: sets epochs a second time, to 2 instead of 1"));
  JobOptions twice(spec_train);
  EXPECT_NO_THROW(apply_yaml_text(twice, "model: {max_seq_len: 64}\ntraining: {max_seq_len: 64}\n", "a.yaml"));
  EXPECT_EQ(complaint("loss_scale: 2\n"),
            "a.yaml: loss_scale: training runs in bf16 or f32 (`--dtype`), which need no loss scale");
  EXPECT_THAT(complaint("lr_schedule: cosin\n"), HasSubstr("did you mean \"cosine\"?"));
  EXPECT_THAT(complaint("[1, 2]\n"), HasSubstr("a.yaml: expected options"));
  EXPECT_THAT(complaint("epochs:\n"), HasSubstr("expected an integer, got null"));
  EXPECT_THAT(complaint("model: {model_id: [a, b]}\n"), HasSubstr("a.yaml: model.model_id: expected text"));
  EXPECT_THAT(complaint("rslora: maybe\n"), HasSubstr("expected true or false"));
  EXPECT_THAT(complaint("learning_rate: .inf\n"), HasSubstr("expected a number"));
  EXPECT_THAT(complaint("target_modules: q_proj\n"), HasSubstr("expected a list"));
  EXPECT_THAT(complaint("lora: {r: {r: 1}}\n"), HasSubstr("expected an integer"));
}

TEST(Options, Issues_name_field_bounds_and_value) {
  JobOptions options(spec_train);
  options.set_text(*options.find("lora_r"), "0", "--lora-r");
  options.set_text(*options.find("output_dir"), "a/../b", "--output");
  options.set_text(*options.find("rank_pattern"), "q_proj=5000", "--rank-pattern");
  std::string all;
  for (const FieldIssue& issue : options.normalize()) all += issue.field + " " + issue.message + "\n";
  EXPECT_THAT(all, HasSubstr("lora_r must be 1..1024, is 0\n"));
  EXPECT_THAT(all, HasSubstr("model is required: give --model\n"));
  EXPECT_THAT(all, HasSubstr("rank_pattern must be 1..1024, is 5000\n"));
  EXPECT_THAT(all, HasSubstr("output_dir \"a/../b\" climbs out"));
}

TEST(Options, Contradictions_are_refused) {
  JobOptions options(spec_train);
  for (const auto& [name, word] : {std::pair{"model", "m"}, {"dataset", "d"}, {"full", "true"}, {"lora_r", "8"}})
    options.set_text(*options.find(name), word, name);
  EXPECT_EQ(error_of([&] { require_valid(options); }), "--lora-r has no effect together with --full: drop one of them");
  JobOptions probe(spec_probe);
  probe.set_text(*probe.find("model"), "m", "");
  probe.set_text(*probe.find("output"), "o", "");
  EXPECT_EQ(error_of([&] { require_valid(probe); }), "--input-ids or --inputs is required");
}

// What a run writes down holds every field; it must start the same run again, whatever it contradicted by a default.
TEST(Options, A_file_with_every_field_is_valid) {
  const std::vector<std::vector<std::pair<const char*, const char*>>> commands = {
      {{"train", ""}, {"model", "m"}, {"dataset", "d"}, {"full", "true"}},
      {{"train", ""}, {"model", "m"}, {"dataset", "d"}, {"recompute", "none"}},
      {{"infer", ""}, {"model", "m"}, {"prompt", "p"}},
      {{"infer", ""}, {"model", "m"}, {"interactive", "true"}},
      {{"eval", ""}, {"model", "m"}, {"dataset", "d"}, {"metric", "exact_match"}},
      {{"eval", ""}, {"model", "m"}, {"dataset", "d"}},
      {{"pretrain", ""}, {"shards", "s"}, {"model_config", "c"}},
      {{"memory", ""}},
  };
  for (const auto& fields : commands) {
    const auto spec = std::find_if(all_specs().begin(), all_specs().end(),
                                   [&](const JobSpec* s) { return s->name == fields[0].first; });
    JobOptions typed(**spec);
    for (size_t i = 1; i < fields.size(); ++i)
      typed.set_text(*typed.find(fields[i].first), fields[i].second, fields[i].first);
    EXPECT_NO_THROW(require_valid(typed)) << fields[0].first;
    JobOptions read(**spec);
    apply_json(read, to_json(typed), "file");
    EXPECT_NO_THROW(require_valid(read)) << fields[0].first;
    EXPECT_EQ(to_json(read), to_json(typed));
    EXPECT_EQ(to_argv(read), to_argv(typed));
  }
}

TEST(Options, Words_of_lists_and_maps) {
  JobOptions options(spec_train);
  const auto get_after = [&](const char* name, const char* word) {
    options.set_text(*options.find(name), word, name);
    return options.get(*options.find(name)).dump();
  };
  EXPECT_EQ(get_after("target_modules", "q_proj,v_proj"), R"(["q_proj","v_proj"])");
  EXPECT_EQ(get_after("target_modules", R"(["a,b"])"), R"(["a,b"])");
  EXPECT_EQ(get_after("layers_to_transform", "0,2"), "[0,2]");
  EXPECT_EQ(get_after("rank_pattern", "a=b=3,c=4"), R"({"a=b":3,"c":4})");
  EXPECT_EQ(get_after("target_modules", "[]"), "[]");
  EXPECT_EQ(get_after("rank_pattern", "{}"), "{}");
  EXPECT_EQ(error_of([&] { get_after("target_modules", ""); }),
            "target_modules: \"\" holds an empty entry; leave it out, or write [] for an empty list");
  for (const char* word : {",", "a,", ",a", "a,,b"})
    EXPECT_THAT(error_of([&] { get_after("exclude_modules", word); }), HasSubstr("holds an empty entry")) << word;
  EXPECT_THAT(error_of([&] { get_after("layers_to_transform", "1,,2"); }), HasSubstr("holds an empty entry"));
  EXPECT_EQ(error_of([&] { get_after("rank_pattern", "a=1,"); }),
            "rank_pattern: \"a=1,\" holds an empty entry; leave it out, or write {} for an empty map");
  EXPECT_THAT(error_of([&] { get_after("rank_pattern", "a=1,a=2"); }), HasSubstr("given twice"));
  EXPECT_THAT(error_of([&] { get_after("learning_rate", "inf"); }), HasSubstr("expected a number"));
  EXPECT_THAT(error_of([&] { get_after("seed", "-1"); }), HasSubstr("2^64"));
  EXPECT_EQ(get_after("seed", "18446744073709551615"), "18446744073709551615");
}

TEST(Options, Schema_has_types_bounds_and_choices) {
  const Json schema = json_schema(spec_train);
  EXPECT_EQ(schema["additionalProperties"], false);
  EXPECT_EQ(schema["required"], Json::parse(R"(["model","dataset"])"));
  EXPECT_EQ(schema["properties"]["lora_r"]["type"], "integer");
  EXPECT_EQ(schema["properties"]["lora_r"]["maximum"].dump(), "1024");
  EXPECT_EQ(schema["properties"]["lr_schedule"]["enum"][3], "cosine_with_restarts");
  EXPECT_EQ(schema["properties"]["layers_to_transform"]["items"]["type"], "integer");
  EXPECT_EQ(schema["properties"]["learning_rate"]["default"], 2e-4);
}

TEST(Options, The_sample_configuration_is_valid_yaml_of_the_command) {
  for (const JobSpec* spec : all_specs()) {
    std::string sample = sample_yaml(*spec);
    JobOptions options(*spec);
    apply_yaml_text(options, sample, "sample.yaml");
    // every commented default is valid too
    for (const FieldDescriptor& field : spec->fields)
      if (const size_t at = sample.find(fmt::format("\n#{}: ", field.name)); at != std::string::npos)
        sample.erase(at + 1, 1);
    JobOptions uncommented(*spec);
    apply_yaml_text(uncommented, sample, "sample.yaml");
    EXPECT_EQ(to_json(uncommented), to_json(options)) << spec->name;
  }
}

}  // namespace
}  // namespace pmetal::jobs
