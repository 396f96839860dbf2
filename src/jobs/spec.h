// A command as data, and a filled-in set of its options. The table of commands is collected by CMake: src/jobs/specs
// holds one description per file (`spec_<command>`), and a command exists once src/jobs/run_<command>.cc defines
// `void run_<command>(const JobOptions&, JobContext&)`.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>
#include <vector>

#include "base/error.h"
#include "jobs/field.h"

namespace pmetal::jobs {

class JobContext;
class JobOptions;

struct FieldIssue {
  std::string field;    // empty when no single field is to blame
  std::string message;  // "must be 1..1024, is 0"
};

struct OptionsType {
  const std::type_info* type;
  std::shared_ptr<void> (*make)();  // default values
};

struct JobSpec {
  std::string_view name;
  std::string_view summary;   // one line, no full stop
  std::string_view examples;  // one command per line, without "pmetal "
  std::span<const FieldDescriptor> fields;
  OptionsType options;
  std::span<const RefusedFlag> refused = {};
  bool has_json = false;     // --json: exactly one JSON document on stdout
  bool has_dry_run = false;  // --dry-run: says what would happen and what it needs
  // what the fields cannot say one by one; appends issues
  void (*check)(const JobOptions& options, std::vector<FieldIssue>& issues) = nullptr;
};

struct Command {
  const JobSpec* spec;
  void (*run)(const JobOptions& options, JobContext& context);
};

std::span<const JobSpec* const> all_specs();         // every description, also of commands that this build cannot run
std::span<const Command> all_commands();             // in order of name
const Command* find_command(std::string_view name);  // null when absent

// Values for the fields of one spec. Copies share the values.
class JobOptions {
 public:
  explicit JobOptions(const JobSpec& spec);

  const JobSpec& spec() const { return *spec_; }
  std::span<const FieldDescriptor> fields() const { return spec_->fields; }

  // the typed struct, e.g. as<TrainOptions>()
  template <class T>
  const T& as() const {
    PMETAL_ASSERT(*spec_->options.type == typeid(T), "options of {} asked for as another type", spec_->name);
    return *static_cast<const T*>(object_.get());
  }
  template <class T>
  T& as() {
    PMETAL_ASSERT(*spec_->options.type == typeid(T), "options of {} asked for as another type", spec_->name);
    return *static_cast<T*>(object_.get());
  }

  Json get(size_t field) const;
  // `where` begins the error message: "--lora-r", "config.yaml:12: lora_r"
  void set(size_t field, const Json& value, std::string_view where);
  // from one word of a command line: lists as a,b or a JSON array, maps as name=1,other=2 or a JSON object
  void set_text(size_t field, std::string_view text, std::string_view where);
  // the same for a flag that stands several times
  void set_typed(size_t field, const Json& value, std::string_view where);

  // whether the value came from the user rather than from the default
  bool was_given(size_t field) const { return given_[field] != Given::kNo; }
  bool was_given(std::string_view name) const;
  // Whether the user wants this value and no other: a flag was typed, or a file says something else than the default.
  // A file may hold every field, as those that a run writes do.
  bool was_asked_for(size_t field) const;
  bool was_asked_for(std::string_view name) const;
  std::optional<size_t> find(std::string_view name) const;

  // every reason why the command could not start with these values; empty when it can
  std::vector<FieldIssue> normalize() const;

 private:
  const JobSpec* spec_;
  std::shared_ptr<void> object_;
  enum class Given : uint8_t { kNo, kByFile, kByFlag };
  std::vector<Given> given_;
};

// throws Error(kUsage) with all issues of normalize() when there are any
void require_valid(const JobOptions& options);

// An object with one member per field; absent optionals are left out. Reading takes flat names and the nested places of
// FieldDescriptor::places, and refuses unknown keys, naming the nearest valid one. `where` begins error messages.
Json to_json(const JobOptions& options);
void apply_json(JobOptions& options, const Json& object, std::string_view where);
Json json_schema(const JobSpec& spec);  // draft 2020-12

// the same as YAML
void apply_yaml_text(JobOptions& options, std::string_view text, const std::string& file_name);
void apply_yaml_file(JobOptions& options, const std::string& path);
std::string to_yaml(const JobOptions& options);  // flat, only what differs from the default or was given
std::string sample_yaml(const JobSpec& spec);    // every field with its help as comment

// Words that give the same options when parsed: what differs from the default or was typed.
std::vector<std::string> to_argv(const JobOptions& options);

}  // namespace pmetal::jobs
