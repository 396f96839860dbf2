#include "jobs/listing.h"

#include "base/dtype.h"
#include "jobs/spec.h"

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

constexpr Listing kListings[] = {
    {"commands", "Commands", command_rows},
    {"dtypes", "Element types", dtype_rows},
};

}  // namespace

std::span<const Listing> all_listings() { return kListings; }

}  // namespace pmetal::jobs
