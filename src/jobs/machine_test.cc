#include "jobs/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace pmetal::jobs {
namespace {

TEST(Machine, Cpu_counts_agree_with_the_standard_library) {
  const CpuInfo cpu = read_cpu_info();
  EXPECT_FALSE(cpu.model.empty());
  EXPECT_EQ(cpu.usable, static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_GE(cpu.logical, cpu.usable);
  EXPECT_LE(cpu.cores, cpu.logical);
  const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  EXPECT_EQ(::testing::Value(cpu.isa, ::testing::Contains("avx2")), has_avx2);
}

TEST(Machine, Memory_figures_are_ordered) {
  const MemoryInfo memory = read_memory_info();
  EXPECT_GT(memory.available, 0);
  EXPECT_GE(memory.total, memory.available);
  EXPECT_GT(memory.process, 0);
  EXPECT_GE(memory.process_peak, memory.process);
}

TEST(Machine, Without_a_gpu_the_reason_is_given) {
  const GpuReport report = read_gpu_report(false);
  EXPECT_EQ(report.gpus.empty(), !report.note.empty());
}

}  // namespace
}  // namespace pmetal::jobs
