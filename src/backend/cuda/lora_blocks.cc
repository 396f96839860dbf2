// Launcher of lora_blocks.
#include "ops/lora_group.h"

#include "backend/cuda/launch.h"

namespace pmetal::cuda {
namespace {

using ops::LoraBlocksArgs;

const char* decline(const LoraBlocksArgs& args, const KernelContext&) {
  for (int64_t i = 0; i < args.n; ++i)
    for (const auto& [joint, own] : {std::pair{&args.a, &args.part[i].a}, {&args.b, &args.part[i].b}}) {
      if (!own->data) continue;
      if (joint->dtype != own->dtype) return "matrices of different dtypes";
      if (args.adds && own->dtype != DType::kF32) return "sums of other than f32";
      if (size_of(own->dtype) != 2 && size_of(own->dtype) != 4) return "elements of neither two nor four bytes";
      if (joint->stride(1) != 1 || own->stride(1) != 1) return "columns are strided";
      if (joint->numel() >= int64_t{1} << 31) return "very large matrices";
    }
  return nullptr;
}

void run(const LoraBlocksArgs& args, const KernelContext& kernel) {
  RectanglesLaunch a{};
  a.adds = args.adds;
  const auto put = [&](const View& joint, int64_t row, int64_t column, const View& own) {
    if (!own.data) return;
    void* corner =
        static_cast<std::byte*>(joint.data) + (row * joint.stride(0) + column * joint.stride(1)) * size_of(joint.dtype);
    Rectangle& r = a.part[a.n++];
    r = {own.data, corner, own.dim(0), own.dim(1), own.stride(0), joint.stride(0)};
    if (args.adds) std::swap(r.to_step, r.from_step), r.from = corner, r.to = own.data;
  };
  int64_t size = 0;
  for (int64_t i = 0; i < args.n; ++i) {
    const LoraBlocksArgs::Part& p = args.part[i];
    put(args.a, p.column, 0, p.a);
    put(args.b, p.row, p.column, p.b);
    size = size_of((p.a ? p.a : p.b).dtype);
  }
  const auto packs = static_cast<int64_t>(16 / size);
  bool packed = true;
  for (int i = 0; i < a.n; ++i) {
    const Rectangle& r = a.part[i];
    packed = packed && r.columns % packs == 0 && r.from_step % packs == 0 && r.to_step % packs == 0 &&
             reinterpret_cast<uintptr_t>(r.from) % 16 == 0 && reinterpret_cast<uintptr_t>(r.to) % 16 == 0;
  }
  for (int i = 0; i < a.n; ++i) {
    Rectangle& r = a.part[i];
    if (packed) r.columns /= packs, r.from_step /= packs, r.to_step /= packs;
    a.most = std::max(a.most, r.rows * r.columns);
  }
  a.bytes = packed ? 16 : static_cast<int>(size);
  if (a.most == 0) return;
  launch_rectangles(stream_of(kernel).handle(), a);
  check_launch("lora_blocks");
}

}  // namespace
}  // namespace pmetal::cuda

namespace pmetal::ops {
namespace {
const Candidate<LoraBlocksArgs> kCandidates[] = {{"rectangles", cuda::decline, cuda::run}};
}
const KernelList<LoraBlocksArgs> lora_blocks_cuda = {"lora_blocks", kCandidates};
}  // namespace pmetal::ops
