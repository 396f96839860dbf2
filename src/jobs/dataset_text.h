// What the dataset commands share: the builder of a model's text, and results as text for people.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/tools/tools.h"
#include "jobs/context.h"
#include "jobs/field.h"
#include "jobs/specs/common.h"

namespace pmetal::jobs {

data::TrainOn to_data(TrainOn train_on);

// null where no model was named
using BuilderOfModel = std::shared_ptr<data::ExampleBuilder>;
BuilderOfModel builder_for(const std::optional<std::string>& model, data::TrainOn train_on, int64_t max_length);
// "auto": the model's own template; "raw": contents joined by line ends; else a built-in family. With
// `add_generation_prompt` the text ends by opening a turn of the assistant, and no turn is marked.
data::RenderChat renderer_for(const std::string& name, const std::optional<std::string>& model,
                              bool add_generation_prompt = false);

Json problems_json(const std::vector<data::RowProblem>& problems);
void print_table(const JobContext& context, const Json& object);       // one "key  value" line per member
std::string histogram_text(const std::vector<data::LengthBin>& bins);  // horizontal bars
// learned text in green, the rest dim, token borders as thin bars; without colour, learned text stands in «»
std::string preview_text(const data::PreviewRow& row, bool colour);
void report_counts(JobContext& context, const data::FileCounts& counts);

}  // namespace pmetal::jobs
