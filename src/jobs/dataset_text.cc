#include "jobs/dataset_text.h"

#include <algorithm>
#include <ostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "formats/json.h"
#include "jobs/text_session.h"
#include "text/chat/family.h"

namespace pmetal::jobs {
namespace {

constexpr int64_t kBarWidth = 50;

std::shared_ptr<const text::chat::ChatTemplate> share(text::chat::ChatTemplate chat) {
  return std::make_shared<text::chat::ChatTemplate>(std::move(chat));
}

data::RenderedChat render_raw(const std::string& messages_json, const std::string&) {
  data::RenderedChat out;
  int64_t index = 0;
  for (const auto& m : formats::parse_json(messages_json, "messages")) {
    const std::string content =
        m.contains("content") && m["content"].is_string() ? m["content"].get<std::string>() : "";
    if (!out.text.empty()) out.text += "\n";
    const auto begin = static_cast<int64_t>(out.text.size());
    out.text += content;
    if (m.contains("role") && m["role"] == "assistant")
      out.assistant.push_back({index, {begin, static_cast<int64_t>(out.text.size())}});
    ++index;
  }
  return out;
}

}  // namespace

data::TrainOn to_data(TrainOn t) {
  return t == TrainOn::kLast  ? data::TrainOn::kLast
         : t == TrainOn::kAll ? data::TrainOn::kAll
                              : data::TrainOn::kEverything;
}

BuilderOfModel builder_for(const std::optional<std::string>& model, data::TrainOn train_on, int64_t max_length) {
  if (!model) return nullptr;
  models::ModelInfo any;
  any.vocabulary = int64_t{1} << 31;  // no model is loaded, so nothing to hold the tokenizer against
  return make_example_builder(open_text(*model, any), {.train_on = train_on, .max_length = max_length});
}

data::RenderChat renderer_for(const std::string& name, const std::optional<std::string>& model,
                              bool add_generation_prompt) {
  const auto render_with = [&](text::chat::ChatTemplate chat) {
    return add_generation_prompt ? data::make_prompt_renderer(share(std::move(chat)))
                                 : data::make_chat_renderer(share(std::move(chat)));
  };
  if (name == "raw") return render_raw;
  if (name == "auto") {
    if (!model) fail(ErrorCode::kUsage, "--template auto takes the template of --model; name one");
    return render_with(text::chat::ChatTemplate::from_model_dir(*model));
  }
  const std::string family = name == "phi" ? "phi3" : name;  // the surface's word for it
  if (!text::chat::find_family(family)) {
    std::string known;
    for (const text::chat::Family* f : text::chat::all_families()) known += std::string(f->name) + ", ";
    fail(ErrorCode::kUsage, "--template \"{}\" is not known; known: {}raw, auto", name, known);
  }
  return render_with(text::chat::ChatTemplate::built_in(family));
}

Json problems_json(const std::vector<data::RowProblem>& problems) {
  Json all = Json::array();
  for (const data::RowProblem& p : problems) all.push_back({{"where", p.where}, {"message", p.message}});
  return all;
}

void print_table(const JobContext& context, const Json& object) {
  for (const auto& [key, value] : object.items()) {
    if (key == "problems") {
      for (const Json& p : value)
        context.data() << fmt::format("{}: {}\n", p["where"].get<std::string>(), p["message"].get<std::string>());
      continue;
    }
    const std::string text = value.is_string()         ? value.get<std::string>()
                             : value.is_number_float() ? fmt::format("{:.4g}", value.get<double>())
                                                       : value.dump();
    context.data() << fmt::format("{:<22}{}\n", key, text);
  }
}

std::string histogram_text(const std::vector<data::LengthBin>& bins) {
  int64_t most = 1;
  for (const data::LengthBin& b : bins) most = std::max(most, b.count);
  std::string text;
  for (const data::LengthBin& b : bins) {
    std::string bar;
    for (int64_t i = 0; i < (b.count * kBarWidth + most - 1) / most; ++i) bar += "█";
    text += fmt::format("{:>8} – {:<8} {:>8} {}\n", b.low, b.high - 1, b.count, bar);
  }
  return text;
}

std::string preview_text(const data::PreviewRow& row, bool colour) {
  std::string out = fmt::format("── {} ({})\n", row.where, data::name_of(row.format));
  size_t span = 0, border = 0;
  bool inside = false;
  for (int64_t i = 0; i <= static_cast<int64_t>(row.text.size()); ++i) {
    if (inside && i == row.learned[span].end) {
      out += colour ? "\033[0m" : "»";
      inside = false;
      ++span;
    }
    if (!inside && span < row.learned.size() && i == row.learned[span].begin && row.learned[span].end > i) {
      out += colour ? "\033[32m" : "«";
      inside = true;
    }
    while (border < row.token_borders.size() && row.token_borders[border] <= i) {
      if (row.token_borders[border] == i && i > 0 && i < static_cast<int64_t>(row.text.size()))
        out += colour ? (inside ? "\033[90m│\033[32m" : "\033[90m│\033[0m") : "│";
      ++border;
    }
    if (i < static_cast<int64_t>(row.text.size())) out += row.text[static_cast<size_t>(i)];
  }
  return out + "\n";
}

void report_counts(JobContext& context, const data::FileCounts& counts) {
  Json j{{"read", counts.read}, {"written", counts.written}};
  if (!counts.removed.empty()) j["removed"] = counts.removed;
  j["outputs"] = Json::array();
  for (const auto& [path, rows] : counts.outputs) {
    j["outputs"].push_back({{"path", path.string()}, {"rows", rows}});
    context.artefact(path.string(), "dataset");
  }
  if (context.json)
    context.data() << j.dump(2) << "\n";
  else
    print_table(context, j);
}

}  // namespace pmetal::jobs
