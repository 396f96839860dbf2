// pmetal inspect: what a checkpoint, an adapter or a safetensors file holds.
#include <map>
#include <ostream>

#include <nlohmann/json.hpp>

#include "adapters/peft_config.h"
#include "base/file.h"
#include "formats/safetensors.h"
#include "jobs/context.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/inspect.h"
#include "models/checkpoint.h"

namespace pmetal::jobs {
namespace {

Json tensor_rows(const std::vector<models::TensorInfo>& tensors) {
  Json rows = Json::array();
  for (const models::TensorInfo& t : tensors)
    rows.push_back({{"name", t.name},
                    {"dtype", std::string(name_of(t.dtype))},
                    {"shape", std::vector<int64_t>(t.shape.dims().begin(), t.shape.dims().end())},
                    {"bytes", t.size_bytes}});
  return rows;
}

std::vector<models::TensorInfo> file_tensors(const fs::path& file) {
  std::vector<models::TensorInfo> all;
  const formats::SafetensorsFile opened = formats::SafetensorsFile::open(file);
  for (const formats::TensorView& t : opened.tensors())
    all.push_back({t.name, t.dtype, Shape(std::span(t.shape).first(std::min<size_t>(t.shape.size(), Shape::kMaxRank))),
                   t.bytes.size_bytes()});
  return all;
}

void add_dtypes(Json& j, const std::vector<models::TensorInfo>& tensors) {
  std::map<std::string, int64_t> bytes;
  int64_t total = 0;
  for (const models::TensorInfo& t : tensors) {
    bytes[std::string(name_of(t.dtype))] += t.size_bytes;
    total += t.size_bytes;
  }
  j["tensors"] = tensors.size();
  j["bytes"] = total;
  j["bytes_by_dtype"] = bytes;
}

Json inspect_model(const std::string& name, bool with_tensors) {
  const auto checkpoint = models::Checkpoint::open(name);
  const auto model = models::build(checkpoint->config(), checkpoint->source());
  const models::ModelInfo& info = model->info();
  const models::ParameterCount n = models::count_parameters(*model);
  Json j;
  j["kind"] = "model";
  j["model_type"] = info.model_type;
  j["parameters"] = n.total;
  j["matrix_parameters"] = n.matrices;
  j["layers"] = info.layers;
  j["hidden_size"] = info.hidden;
  j["heads"] = info.heads;
  j["kv_heads"] = info.memory.empty() ? 0 : info.memory[0].kv_heads;
  j["head_dim"] = info.head_dim;
  j["vocabulary"] = info.vocabulary;
  j["max_positions"] = info.max_positions;
  j["tied_head"] = info.tied_head;
  int64_t kv = 0;
  for (const models::LayerMemory& m : info.memory) kv += m.kv_heads * (m.d_k + m.d_v) * 2;
  j["kv_bytes_per_token_bf16"] = kv;
  if (!checkpoint->is_random()) {
    const std::vector<models::TensorInfo> tensors = checkpoint->tensors();
    add_dtypes(j, tensors);
    Json left_out = Json::array();
    for (const models::TensorInfo& t : tensors)
      if (model->ignores(t.name)) left_out.push_back(t.name);
    j["left_out"] = left_out;
    if (with_tensors) j["tensor_list"] = tensor_rows(tensors);
  }
  return j;
}

Json inspect_adapter(const fs::path& folder, bool with_tensors) {
  const adapters::PeftConfig c = adapters::read_peft_config(folder / "adapter_config.json");
  const fs::path file = fs::exists(folder / "adapter_model.safetensors") ? folder / "adapter_model.safetensors"
                                                                         : folder / "lora_weights.safetensors";
  const std::vector<models::TensorInfo> tensors = file_tensors(file);
  Json j;
  j["kind"] = "adapter";
  j["method"] = c.use_dora ? "dora" : c.use_rslora ? "rslora" : "lora";
  j["r"] = c.r;
  j["lora_alpha"] = c.alpha;
  j["base_model"] = c.base_model;
  int64_t parameters = 0;
  for (const models::TensorInfo& t : tensors) parameters += t.shape.numel();
  j["parameters"] = parameters;
  add_dtypes(j, tensors);
  if (with_tensors) j["tensor_list"] = tensor_rows(tensors);
  return j;
}

}  // namespace

void run_inspect(const JobOptions& options, JobContext& job) {
  const InspectOptions& o = options.as<InspectOptions>();
  const std::string name = local_model(job, o.model);
  const fs::path path = name;
  Json j;
  if (fs::is_regular_file(path)) {
    const std::vector<models::TensorInfo> tensors = file_tensors(path);
    j["kind"] = "safetensors";
    add_dtypes(j, tensors);
    j["tensor_list"] = tensor_rows(tensors);
  } else if (fs::exists(path / "adapter_config.json") && !fs::exists(path / "config.json")) {
    j = inspect_adapter(path, o.tensors);
  } else {
    j = inspect_model(name, o.tensors);
  }
  if (job.json) {
    job.data() << j.dump(2) << "\n";
    return;
  }
  for (const auto& [key, value] : j.items())
    if (key != "tensor_list")
      job.data() << fmt::format("{:<24}{}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  if (j.contains("tensor_list"))
    for (const Json& t : j["tensor_list"])
      job.data() << fmt::format("{:<64} {:<8} {:<16} {:>12}\n", t["name"].get<std::string>(),
                                t["dtype"].get<std::string>(), t["shape"].dump(), t["bytes"].get<int64_t>());
}

}  // namespace pmetal::jobs
