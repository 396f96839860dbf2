#include "jobs/listing.h"

#include "base/dtype.h"
#include "jobs/spec.h"
#include "models/model.h"
#include "ops/kernel_lists.h"
#include "quant/weight.h"

namespace pmetal::jobs {
namespace {

std::vector<ListRow> command_rows() {
  std::vector<ListRow> rows;
  for (const Command& command : all_commands())
    rows.push_back({std::string(command.spec->name), std::string(command.spec->summary)});
  return rows;
}

std::vector<ListRow> dtype_rows() {
  std::vector<ListRow> rows;
  for (const DType dtype :
       {DType::kF64, DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI64, DType::kI32,
        DType::kI16, DType::kI8, DType::kU64, DType::kU32, DType::kU16, DType::kU8, DType::kBool})
    rows.push_back({std::string(name_of(dtype)), fmt::format("{} byte{}, {} in safetensors", size_of(dtype),
                                                             size_of(dtype) == 1 ? "" : "s", safetensors_name(dtype))});
  return rows;
}

std::vector<ListRow> model_rows() {
  std::vector<ListRow> rows;
  for (const models::Family* f : models::families()) {
    std::string types;
    for (std::string_view t : f->model_types) types += (types.empty() ? "" : ", ") + std::string(t);
    rows.push_back({std::string(f->name), fmt::format("model_type {}; {}", types, f->architecture)});
  }
  return rows;
}

std::vector<ListRow> format_rows() {
  std::vector<ListRow> rows;
  for (const quant::Format* f : quant::formats())
    rows.push_back({std::string(f->name), f->is_dense ? "dense, row-major" : "kernel layout, made at load"});
  return rows;
}

std::vector<ListRow> kernel_rows() {
  std::vector<ListRow> rows;
  for (const ops::KernelListing& k : ops::kernel_lists()) {
    std::string names = k.is_fused ? "cpu: its parts" : "cpu:";
    for (std::string_view n : k.cpu) names += " " + std::string(n);
    if (!k.cuda.empty()) names += "; cuda:";
    for (std::string_view n : k.cuda) names += " " + std::string(n);
    rows.push_back({std::string(k.op), names});
  }
  return rows;
}

constexpr Listing kListings[] = {
    {"models", "Model families", model_rows},        {"formats", "Weight formats", format_rows},
    {"kernels", "Kernels, best first", kernel_rows}, {"commands", "Commands", command_rows},
    {"dtypes", "Element types", dtype_rows},
};

}  // namespace

std::span<const Listing> all_listings() { return kListings; }

}  // namespace pmetal::jobs
