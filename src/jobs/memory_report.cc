#include "jobs/memory_report.h"

#include <fmt/format.h>

#include "jobs/machine.h"

namespace pmetal::jobs {

std::optional<int64_t> free_memory(Device device) {
  if (!device.is_cuda()) {
    const int64_t available = read_memory_info().available;
    return available > 0 ? std::optional(available) : std::nullopt;
  }
  for (const GpuInfo& gpu : read_gpu_report(true).gpus)
    if (gpu.index == device.index && gpu.memory_free >= 0) return gpu.memory_free;
  return std::nullopt;
}

int64_t resident_bytes(models::Model& model) {
  struct Sum final : models::ParameterVisitor {
    int64_t bytes = 0;
    void tensor(const Tensor& t) { bytes += t.defined() ? t.size_bytes() : 0; }
    void on(nn::Linear& l) override {
      bytes += l.weight.defined() ? l.weight.size_bytes() : 0;
      tensor(l.trainable);
      tensor(l.bias);
    }
    void on(nn::Embedding& e) override {
      bytes += e.weight.defined() ? e.weight.size_bytes() : 0;
      tensor(e.trainable);
    }
    void on(nn::Parameter& p) override { tensor(p.value); }
  } sum;
  model.visit(sum);
  return sum.bytes;
}

std::string describe(const train::MemoryPlan& plan) {
  const auto gb = [](int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  return fmt::format("{:.2f} GB: weights {:.2f}, trained parameters {:.2f}, activations {:.2f}", gb(plan.total),
                     gb(plan.weights), gb(plan.parameters), gb(plan.activations));
}

}  // namespace pmetal::jobs
