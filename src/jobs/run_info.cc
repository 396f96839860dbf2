// `pmetal info`: the processor, the memory and the GPUs of this machine.
#include <ostream>

#include <nlohmann/json.hpp>

#include "jobs/context.h"
#include "jobs/machine.h"
#include "jobs/spec.h"

namespace pmetal::jobs {
namespace {

constexpr double kGb = 1e9;

Json to_json(const CpuInfo& cpu) {
  Json out;
  out["model"] = cpu.model;
  out["sockets"] = cpu.sockets;
  out["numa_nodes"] = cpu.numa_nodes;
  out["cores"] = cpu.cores;
  out["logical_cores"] = cpu.logical;
  out["usable_cores"] = cpu.usable;
  out["isa"] = cpu.isa;
  if (!cpu.max_isa.empty()) out["max_isa"] = cpu.max_isa;
  return out;
}

Json to_json(const GpuInfo& gpu) {
  Json out;
  out["index"] = gpu.index;
  out["name"] = gpu.name;
  out["compute_capability"] = fmt::format("{}.{}", gpu.compute_major, gpu.compute_minor);
  out["multiprocessors"] = gpu.multiprocessors;
  out["memory_total_gb"] = static_cast<double>(gpu.memory_total) / kGb;
  if (gpu.bandwidth_gb_s > 0) out["memory_bandwidth_gbps"] = gpu.bandwidth_gb_s;
  out["peers"] = gpu.peers;
  return out;
}

}  // namespace

void run_info(const JobOptions&, JobContext& context) {
  const CpuInfo cpu = read_cpu_info();
  const MemoryInfo memory = read_memory_info();
  const GpuReport gpus = read_gpu_report(false);
  const double total_gb = static_cast<double>(memory.total) / kGb;
  if (context.json) {
    Json out;
    out["cpu"] = to_json(cpu);
    out["memory_total_gb"] = total_gb;
    out["gpus"] = Json::array();
    for (const GpuInfo& gpu : gpus.gpus) out["gpus"].push_back(to_json(gpu));
    if (gpus.driver_version > 0)
      out["cuda_driver"] = fmt::format("{}.{}", gpus.driver_version / 1000, gpus.driver_version % 1000 / 10);
    if (!gpus.note.empty()) out["gpu_note"] = gpus.note;
    context.data() << out.dump(2) << "\n";
    return;
  }
  std::string text = fmt::format("processor     {}\n", cpu.model);
  text += fmt::format("cores         {} ({} threads, {} usable by this process), {} socket{}, {} NUMA node{}\n",
                      cpu.cores, cpu.logical, cpu.usable, cpu.sockets, cpu.sockets == 1 ? "" : "s", cpu.numa_nodes,
                      cpu.numa_nodes == 1 ? "" : "s");
  text += fmt::format("instructions  {}\n",
                      cpu.isa.empty() ? "none of those pmetal uses" : fmt::format("{}", fmt::join(cpu.isa, " ")));
  if (!cpu.max_isa.empty()) text += fmt::format("limited to    {} (PMETAL_MAX_ISA)\n", cpu.max_isa);
  text += fmt::format("memory        {:.1f} GB\n", total_gb);
  for (const GpuInfo& gpu : gpus.gpus) {
    text += fmt::format("GPU {}         {}, compute {}.{}, {} multiprocessors, {:.1f} GB", gpu.index, gpu.name,
                        gpu.compute_major, gpu.compute_minor, gpu.multiprocessors,
                        static_cast<double>(gpu.memory_total) / kGb);
    if (gpu.bandwidth_gb_s > 0) text += fmt::format(" at {:.0f} GB/s", gpu.bandwidth_gb_s);
    if (!gpu.peers.empty()) text += fmt::format(", peers {}", fmt::join(gpu.peers, " "));
    text += "\n";
  }
  if (gpus.driver_version > 0)
    text += fmt::format("CUDA driver   {}.{}\n", gpus.driver_version / 1000, gpus.driver_version % 1000 / 10);
  if (!gpus.note.empty()) text += fmt::format("GPU           none: {}\n", gpus.note);
  context.data() << text;
}

}  // namespace pmetal::jobs
