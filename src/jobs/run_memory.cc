// `pmetal memory`: memory in use, of the machine and of each GPU.
#include <ostream>

#include <nlohmann/json.hpp>

#include "jobs/context.h"
#include "jobs/machine.h"
#include "jobs/spec.h"

namespace pmetal::jobs {
namespace {

double gb(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

}  // namespace

void run_memory(const JobOptions&, JobContext& context) {
  const MemoryInfo memory = read_memory_info();
  const GpuReport gpus = read_gpu_report(true);
  if (context.json) {
    Json out;
    out["total_gb"] = gb(memory.total);
    out["used_gb"] = gb(memory.total - memory.available);
    out["available_gb"] = gb(memory.available);
    out["peak_gb"] = gb(memory.process_peak);
    out["devices"] = Json::array();
    for (const GpuInfo& gpu : gpus.gpus) {
      Json device;
      device["index"] = gpu.index;
      device["name"] = gpu.name;
      device["total_gb"] = gb(gpu.memory_total);
      if (gpu.memory_free >= 0) {
        device["used_gb"] = gb(gpu.memory_total - gpu.memory_free);
        device["available_gb"] = gb(gpu.memory_free);
      }
      out["devices"].push_back(device);
    }
    context.data() << out.dump(2) << "\n";
    return;
  }
  std::string text = fmt::format("            {:>10} {:>10} {:>10}\n", "total", "used", "available");
  text += fmt::format("memory      {:>7.1f} GB {:>7.1f} GB {:>7.1f} GB\n", gb(memory.total),
                      gb(memory.total - memory.available), gb(memory.available));
  for (const GpuInfo& gpu : gpus.gpus) {
    text += fmt::format("GPU {:<7} {:>7.1f} GB", gpu.index, gb(gpu.memory_total));
    if (gpu.memory_free >= 0)
      text += fmt::format(" {:>7.1f} GB {:>7.1f} GB", gb(gpu.memory_total - gpu.memory_free), gb(gpu.memory_free));
    text += fmt::format("  {}\n", gpu.name);
  }
  text += fmt::format("this process used {:.3f} GB at most\n", gb(memory.process_peak));
  context.data() << text;
}

}  // namespace pmetal::jobs
