#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "jobs/machine.h"

namespace pmetal::jobs {
namespace {

// the bits a kernel of ours may ask for
constexpr const char* kIsaBits[] = {"avx2",     "fma",      "f16c",        "avx_vnni",    "avx512f",
                                    "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
                                    "amx_tile", "amx_bf16", "amx_int8"};

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t\r");
  return begin == std::string::npos ? std::string() : text.substr(begin, end - begin + 1);
}

int count_numa_nodes() {
  int n = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/devices/system/node", ignored)) {
    const std::string name = entry.path().filename();
    if (name.rfind("node", 0) == 0 && name.find_first_not_of("0123456789", 4) == std::string::npos) ++n;
  }
  return n > 0 ? n : 1;
}

// "VmRSS:   1234 kB" -> bytes
int64_t kilobytes_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key + ":", 0) == 0) return std::strtoll(line.c_str() + key.size() + 1, nullptr, 10) * 1024;
  return 0;
}

}  // namespace

CpuInfo read_cpu_info() {
  CpuInfo info;
  std::set<std::string> sockets, flags;
  std::set<std::pair<std::string, std::string>> cores;
  std::string socket;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string key = trimmed(line.substr(0, colon)), value = trimmed(line.substr(colon + 1));
    if (key == "processor") ++info.logical;
    if (key == "model name" && info.model.empty()) info.model = value;
    if (key == "physical id") sockets.insert(socket = value);
    if (key == "core id") cores.emplace(socket, value);
    if (key == "flags" && flags.empty()) {
      std::istringstream words(value);
      for (std::string word; words >> word;) flags.insert(word);
    }
  }
  info.sockets = sockets.empty() ? 1 : static_cast<int>(sockets.size());
  info.cores = cores.empty() ? info.logical : static_cast<int>(cores.size());
  info.numa_nodes = count_numa_nodes();
  for (const char* bit : kIsaBits)
    if (flags.count(bit) != 0) info.isa.emplace_back(bit);
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  info.usable = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : info.logical;
  if (const char* limit = std::getenv("PMETAL_MAX_ISA")) info.max_isa = limit;
  return info;
}

MemoryInfo read_memory_info() {
  return {kilobytes_of("/proc/meminfo", "MemTotal"), kilobytes_of("/proc/meminfo", "MemAvailable"),
          kilobytes_of("/proc/self/status", "VmRSS"), kilobytes_of("/proc/self/status", "VmHWM")};
}

}  // namespace pmetal::jobs
