// `pmetal search`: models of the hub beside the memory of this machine: that of its largest GPU, else its main memory,
// as much as is free now.
#include <algorithm>
#include <ostream>

#include <nlohmann/json.hpp>

#include "hub/search.h"
#include "jobs/hub_names.h"
#include "jobs/machine.h"
#include "jobs/spec.h"
#include "jobs/specs/search.h"

namespace pmetal::jobs {
namespace {

constexpr int64_t kContext = 4096;  // tokens that the estimates are for

struct Place {
  std::string name;
  double free_gb = 0;
  double bandwidth_gb_s = 0;  // 0: unknown, so no speed is estimated
};

Place find_place() {
  Place best{"main memory", static_cast<double>(read_memory_info().available) / 1e9, 0};
  bool is_gpu = false;
  for (const GpuInfo& gpu : read_gpu_report(true).gpus) {
    const double free_gb = static_cast<double>(gpu.memory_free >= 0 ? gpu.memory_free : gpu.memory_total) / 1e9;
    if (!is_gpu || free_gb > best.free_gb) best = {gpu.name, free_gb, gpu.bandwidth_gb_s};
    is_gpu = true;
  }
  return best;
}

Json row_json(const hub::FoundModel& m, const Place& place) {
  Json row{{"model", m.name}, {"downloads", m.downloads}, {"likes", m.likes}, {"gated", m.is_gated}};
  if (!m.task.empty()) row["task"] = m.task;
  if (!m.size) return row;
  const hub::TrainingEstimate training = hub::training_estimate(*m.size, kContext, place.free_gb);
  row["params_b"] = m.size->params_b;
  if (m.size->active_b > 0) row["active_b"] = m.size->active_b;
  row["precision"] = std::string(name_of(m.size->precision));
  row["weights_gb"] = hub::weights_gb(*m.size);
  row["kv_gb"] = hub::kv_gb(*m.size, kContext);
  row["needed_gb"] = hub::inference_gb(*m.size, kContext);
  row["fit"] = std::string(name_of(hub::fit_of(hub::inference_gb(*m.size, kContext), place.free_gb)));
  if (place.bandwidth_gb_s > 0)
    row["tokens_per_second"] = hub::tokens_per_second(*m.size, kContext, place.bandwidth_gb_s);
  row["training_gb"] = training.needed_gb;
  row["training_fit"] = std::string(name_of(hub::fit_of(training.needed_gb, place.free_gb)));
  row["training_batch_size"] = training.batch_size;
  row["training_wants_quantized"] = training.wants_quantized;
  return row;
}

std::string table(const Json& rows, const Place& place, bool detailed) {
  size_t width = 5;
  for (const Json& row : rows) width = std::max(width, row["model"].get<std::string>().size());
  std::string text = fmt::format("{:<{}}  {:>9}  {:>9}  {:>11}  {}\n", "model", width, "params", "memory", "downloads",
                                 fmt::format("fit ({:.1f} GB free: {})", place.free_gb, place.name));
  for (const Json& row : rows) {
    const bool is_known = row.contains("fit");
    text += fmt::format("{:<{}}  {:>9}  {:>9}  {:>11}  {}{}\n", row["model"].get<std::string>(), width,
                        is_known ? fmt::format("{:.3g} B", row["params_b"].get<double>()) : "?",
                        is_known ? fmt::format("{:.1f} GB", row["needed_gb"].get<double>()) : "?",
                        row["downloads"].get<int64_t>(), is_known ? row["fit"].get<std::string>() : "unknown",
                        row["gated"].get<bool>() ? " (gated)" : "");
    if (!detailed) continue;
    text += fmt::format("    {} likes{}\n", row["likes"].get<int64_t>(),
                        row.contains("task") ? ", " + row["task"].get<std::string>() : "");
    if (!is_known) continue;
    text += fmt::format("    {}: weights {:.2f} GB, KV cache {:.2f} GB at {} tokens{}\n",
                        row["precision"].get<std::string>(), row["weights_gb"].get<double>(),
                        row["kv_gb"].get<double>(), kContext,
                        row.contains("tokens_per_second")
                            ? fmt::format(", about {:.0f} tokens/s", row["tokens_per_second"].get<double>())
                            : "");
    text += fmt::format("    training an adapter: {:.1f} GB, {}, batch size {}{}\n", row["training_gb"].get<double>(),
                        row["training_fit"].get<std::string>(), row["training_batch_size"].get<int64_t>(),
                        row["training_wants_quantized"].get<bool>() ? "; better over a quantized base" : "");
  }
  return text;
}

}  // namespace

void run_search(const JobOptions& options, JobContext& job) {
  const auto& o = options.as<SearchOptions>();
  const hub::Settings settings = hub::settings_from_environment();
  const std::vector<hub::FoundModel> found =
      hub::search_models(settings, o.query, o.limit, [&job] { return !job.is_cancelled(); });
  const Place place = find_place();
  Json rows = Json::array();
  for (const hub::FoundModel& m : found) rows.push_back(row_json(m, place));
  Json document{{"query", o.query},
                {"free_gb", place.free_gb},
                {"memory_of", place.name},
                {"context", kContext},
                {"models", rows}};
  if (!job.json)
    job.data() << (rows.empty() ? fmt::format("no model matches \"{}\"\n", o.query) : table(rows, place, o.detailed));
  if (o.download) {
    const auto first =
        std::find_if(rows.begin(), rows.end(), [](const Json& row) { return row.value("fit", "") == "fits"; });
    if (first == rows.end())
      fail(ErrorCode::kNotFound,
           "none of the {} models is known to fit into {:.1f} GB; try other words or a larger --limit", rows.size(),
           place.free_gb);
    const std::string name = (*first)["model"];
    const hub::Snapshot s = hub::download_snapshot(settings, {hub::RepoKind::kModel, name, "main"},
                                                   hub::Purpose::kModel, download_progress(job, name));
    report_download(job, name, s);
    job.artefact(s.folder.string(), "model");
    document["downloaded"] = Json{{"model", name}, {"path", s.folder.string()}};
    if (!job.json) job.data() << fmt::format("{}: {}\n", name, s.folder.string());
  }
  if (job.json) job.data() << document.dump(2) << "\n";
}

}  // namespace pmetal::jobs
