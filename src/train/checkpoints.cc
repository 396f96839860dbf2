#include "train/checkpoints.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <functional>
#include <map>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/json.h"
#include "formats/json_reader.h"
#include "formats/safetensors.h"
#include "ops/elementwise.h"

namespace pmetal::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kSnapshot = "best_snapshot.safetensors";

// step_N folders, newest first
std::vector<std::pair<int64_t, fs::path>> step_folders(const fs::path& checkpoints) {
  std::vector<std::pair<int64_t, fs::path>> all;
  if (!fs::is_directory(checkpoints)) return all;
  for (const fs::directory_entry& e : fs::directory_iterator(checkpoints)) {
    const std::string name = e.path().filename().string();
    int64_t step = 0;
    if (!name.starts_with("step_") || !fs::exists(e.path() / "metadata.json")) continue;
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size()) all.emplace_back(step, e.path());
  }
  std::sort(all.rbegin(), all.rend());
  return all;
}

// temporary folders of a process that was killed
void remove_leftovers(const fs::path& checkpoints) {
  for (const fs::directory_entry& e : fs::directory_iterator(checkpoints)) {
    std::error_code ignored;
    if (e.path().filename().string().find(".tmp-") != std::string::npos) fs::remove_all(e.path(), ignored);
  }
}

// `parts`: flat buffers in the order of kParts
constexpr const char* kParts[] = {".__master", ".__m", ".__v"};
void write_flat(Context& ctx, const fs::path& file, const FlatParameters& parameters,
                const std::function<Tensor(const FlatParameters::Item&, size_t part)>& part_of) {
  std::vector<formats::TensorDeclaration> declarations;
  std::map<std::string, Tensor> tensors;
  for (const FlatParameters::Item& item : parameters.items()) {
    const std::vector<int64_t> shape(item.shape.dims().begin(), item.shape.dims().end());
    for (size_t part = 0; part < std::size(kParts); ++part) {
      declarations.push_back({item.key + kParts[part], DType::kF32, shape});
      tensors[item.key + kParts[part]] = part_of(item, part);
    }
  }
  formats::SafetensorsWriter writer(file, std::move(declarations));
  for (const formats::TensorDeclaration& d : writer.order()) {
    const Tensor host = ops::to_host(ctx, tensors.at(d.name));
    writer.write(d.name, std::span(host.bytes(), static_cast<size_t>(host.size_bytes())));
  }
  writer.finish();
}

Tensor current(const FlatParameters& p, const FlatParameters::Item& item, size_t part) {
  return part == 0 ? p.master(item) : part == 1 ? p.moment1(item) : p.moment2(item);
}

Tensor kept(const Snapshot& s, const FlatParameters::Item& item, size_t part) {
  return FlatParameters::part(part == 0 ? s.master : part == 1 ? s.m : s.v, item);
}

void read_flat(Context& ctx, const fs::path& path, const FlatParameters& parameters,
               const std::function<Tensor(const FlatParameters::Item&, size_t part)>& part_of) {
  const formats::SafetensorsFile file = formats::SafetensorsFile::open(path);
  for (const FlatParameters::Item& item : parameters.items())
    for (size_t part = 0; part < std::size(kParts); ++part) {
      const formats::TensorView& t = file.at(item.key + kParts[part]);
      const Tensor to = part_of(item, part);
      if (t.dtype != DType::kF32 || t.n_elements() != to.numel())
        fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" has {} elements of {}, expected {} of f32", file.source(),
             t.name, t.n_elements(), name_of(t.dtype), to.numel());
      Tensor host(allocate_host(to.size_bytes()), to.shape(), DType::kF32);
      std::copy_n(t.bytes.data(), t.bytes.size_bytes(), host.bytes());
      ops::copy(ctx, ops::to_device(ctx, host), to);
    }
}

void save_target(Context& ctx, const fs::path& folder, const FlatParameters& parameters, TrainTarget& target) {
  target.save(folder, [&](const std::string& key) -> Tensor {
    for (const FlatParameters::Item& item : parameters.items())
      if (item.key == key) return ops::to_host(ctx, parameters.master(item));
    return {};
  });
}

// under its own name a folder is whole: it takes a temporary one before its files go
void remove_folder(const fs::path& folder) {
  const fs::path doomed = folder.string() + ".tmp-0-0";
  fs::remove_all(doomed);
  fs::rename(folder, doomed);
  fs::remove_all(doomed);
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Json to_json(const CheckpointState& s) {
  Json j;
  j["step"] = s.step;
  j["epoch"] = s.epoch;
  j["running_loss"] = s.loss;
  j["best_val_loss"] = s.has_best ? Json(s.best_eval_loss) : Json(nullptr);
  j["learning_rate"] = s.lr;
  j["tokens"] = s.tokens;
  j["skipped_steps"] = s.skipped;
  j["seed"] = s.seed;
  j["lr_override"] = s.lr_override ? Json(*s.lr_override) : Json(nullptr);
  j["lr_factor"] = s.lr_factor;
  j["timestamp"] = unix_seconds();
  if (!s.adaptive_lr.empty()) j["adaptive_lr"] = formats::parse_json(s.adaptive_lr, "adaptive rate");
  j["loader"] = formats::parse_json(s.loader, "loader state");
  j["training_config"] = s.config.empty() ? Json::object() : formats::parse_json(s.config, "configuration");
  return j;
}

// names the first top-level key in which two JSON texts differ
std::string first_difference(const std::string& a, const std::string& b) {
  const Json x = formats::parse_json(a, "saved configuration"), y = formats::parse_json(b, "configuration");
  for (const auto& [key, value] : x.items())
    if (!y.contains(key) || y[key] != value)
      return fmt::format("{} was {}, is {}", key, value.dump(), y.contains(key) ? y[key].dump() : "absent");
  for (const auto& [key, value] : y.items())
    if (!x.contains(key)) return fmt::format("{} was absent, is {}", key, value.dump());
  return "";
}

}  // namespace

fs::path save_checkpoint(Context& ctx, const fs::path& checkpoints, const CheckpointState& s,
                         const FlatParameters& parameters, const Snapshot& snapshot, TrainTarget& target, int keep) {
  fs::create_directories(checkpoints);
  remove_leftovers(checkpoints);
  const fs::path folder = checkpoints / fmt::format("step_{}", s.step);
  AtomicDirectory directory(folder);
  save_target(ctx, directory.temporary(), parameters, target);
  write_flat(ctx, directory.temporary() / kOptimizer, parameters,
             [&](const FlatParameters::Item& item, size_t part) { return current(parameters, item, part); });
  if (snapshot.defined())
    write_flat(ctx, directory.temporary() / kSnapshot, parameters,
               [&](const FlatParameters::Item& item, size_t part) { return kept(snapshot, item, part); });
  write_file_atomic(directory.temporary() / "metadata.json", formats::dump_json(to_json(s)) + "\n");
  directory.commit();
  write_file_atomic(checkpoints / "latest", folder.filename().string() + "\n");
  const auto all = step_folders(checkpoints);
  for (size_t i = static_cast<size_t>(std::max(keep, 1)); i < all.size(); ++i) remove_folder(all[i].second);
  return folder;
}

fs::path save_best(Context& ctx, const fs::path& checkpoints, const CheckpointState& s,
                   const FlatParameters& parameters, TrainTarget& target) {
  AtomicDirectory directory(checkpoints / "best");
  save_target(ctx, directory.temporary(), parameters, target);
  write_file_atomic(directory.temporary() / "metadata.json", formats::dump_json(to_json(s)) + "\n");
  directory.commit();
  return checkpoints / "best";
}

std::optional<fs::path> newest_checkpoint(const fs::path& checkpoints) {
  // `latest` may be one behind when the process died between the two renames: the folders themselves decide
  const auto all = step_folders(checkpoints);
  if (all.empty()) return std::nullopt;
  return all[0].second;
}

CheckpointState load_checkpoint(Context& ctx, const fs::path& folder, FlatParameters& parameters, Snapshot& snapshot,
                                const std::string& config) {
  const Json value = formats::read_json(folder / "metadata.json");
  const formats::JsonReader json(value, (folder / "metadata.json").string());
  CheckpointState s;
  s.config = json.raw("training_config").dump();
  if (const std::string difference = config.empty() ? "" : first_difference(s.config, config); !difference.empty())
    fail(ErrorCode::kInvalidInput,
         "{}: was saved by a run with another configuration ({}); resume with the same options or train into a new "
         "folder",
         folder.string(), difference);
  s.step = json.integer("step");
  s.epoch = json.number("epoch");
  s.loss = json.number_or("running_loss", 0);
  s.has_best = json.has("best_val_loss");
  s.best_eval_loss = json.number_or("best_val_loss", 0);
  s.tokens = json.integer("tokens");
  s.skipped = json.integer("skipped_steps");
  s.seed = static_cast<uint64_t>(json.raw("seed").get<uint64_t>());
  s.lr_override = json.maybe_number("lr_override");
  s.lr_factor = json.number("lr_factor");
  s.loader = json.raw("loader").dump();
  if (json.has("adaptive_lr")) s.adaptive_lr = json.raw("adaptive_lr").dump();
  read_flat(ctx, folder / kOptimizer, parameters,
            [&](const FlatParameters::Item& item, size_t part) { return current(parameters, item, part); });
  if (fs::exists(folder / kSnapshot)) {
    snapshot = parameters.empty_snapshot(ctx);
    read_flat(ctx, folder / kSnapshot, parameters,
              [&](const FlatParameters::Item& item, size_t part) { return kept(snapshot, item, part); });
  }
  parameters.masters_changed(ctx);
  return s;
}

}  // namespace pmetal::train
