// The machine's bounds, measured: arithmetic from registers and reading from memory, all workers together.
#pragma once

#include "backend/cpu/isa.h"
#include "base/threads.h"

namespace pmetal::bench {

// Seconds since some moment: of the wall, or (on a machine that others use too) of this process's processor time
// divided by its threads, which is fair for one thread.
void use_processor_time(bool on);
double now_s(const ThreadPool& pool);

double peak_f32_flops(cpu::Isa isa, ThreadPool& pool);   // fused multiply-add counts as two
double peak_bf16_flops(cpu::Isa isa, ThreadPool& pool);  // of the arithmetic that this level uses for bf16
double memory_read_bytes_per_s(ThreadPool& pool);

// to the first core it may use: workers are pinned by the pool, the caller is worker 0
void pin_caller();

}  // namespace pmetal::bench
