// The machine as it is: processor, memory, GPUs. Read from /proc, /sys and the CUDA driver (opened when present).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pmetal::jobs {

struct CpuInfo {
  std::string model;
  int sockets = 1, numa_nodes = 1, cores = 0;  // physical cores
  int logical = 0;                             // threads of the machine
  int usable = 0;                              // those this process may run on
  std::vector<std::string> isa;  // avx2, fma, avx512f, avx512_bf16, avx512_vnni, amx_tile, amx_bf16, amx_int8 ...
  std::string max_isa;           // PMETAL_MAX_ISA, empty when unset
};

struct MemoryInfo {  // bytes
  int64_t total = 0, available = 0;
  int64_t process = 0, process_peak = 0;  // resident memory of this process
};

struct GpuInfo {
  int index = 0;
  std::string name;
  int compute_major = 0, compute_minor = 0, multiprocessors = 0;
  int64_t memory_total = 0;
  int64_t memory_free = -1;   // -1: unknown
  double bandwidth_gb_s = 0;  // 0: the driver does not say
  std::vector<int> peers;     // devices it can reach directly
};

struct GpuReport {
  std::vector<GpuInfo> gpus;
  int driver_version = 0;  // CUDA version of the driver: 13000 = 13.0; 0 without a driver
  std::string note;        // why there is none
};

CpuInfo read_cpu_info();
MemoryInfo read_memory_info();
// free memory needs a context on each GPU, which takes a second and some device memory: on request only
GpuReport read_gpu_report(bool with_free_memory);

}  // namespace pmetal::jobs
