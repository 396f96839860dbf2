// Context: what every op takes first: device, threads or stream, allocator, tape, math mode. Nothing of this is global
// or thread-local; two contexts can run side by side.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>

#include "base/threads.h"
#include "tensor/allocator.h"
#include "tensor/tensor.h"

namespace pmetal {

class Tape;
class OpTimes;

// Named ranges for a profiler's timeline (NVTX on CUDA); see RangeScope.
struct RangeMarks {
  void (*push)(const char* name);
  void (*pop)();
};

enum class MathMode { kExact, kFast };  // fast: int8/fp8 activations for quantized serving, chosen openly

class Context {
 public:
  // CPU with its own caching allocator
  explicit Context(std::shared_ptr<ThreadPool> threads, std::shared_ptr<Allocator> allocator = make_cpu_allocator())
      : threads_(std::move(threads)), allocator_(std::move(allocator)), device_(allocator_->device()) {}

  Device device() const { return device_; }
  ThreadPool& threads() const { return *threads_; }
  const std::shared_ptr<ThreadPool>& thread_pool() const { return threads_; }
  Allocator& allocator() const { return *allocator_; }
  void* stream() const { return stream_; }  // the backend's queue of work; null on the CPU
  void set_stream(void* stream) { stream_ = stream; }

  // Null while nothing is to be differentiated.
  Tape* tape() const { return tape_; }
  void set_tape(Tape* tape) { tape_ = tape; }
  MathMode math() const { return math_; }
  void set_math(MathMode mode) { math_ = mode; }
  // Falling to a plain kernel is an error, as with PMETAL_STRICT=1.
  bool is_strict() const { return is_strict_; }
  void set_strict(bool on) { is_strict_ = on; }
  // A meta context that stands for one on `device`: it also counts the workspace of the kernels that would be chosen.
  void plan_for(Device device) { planned_ = device; }
  const std::optional<Device>& planned() const { return planned_; }
  // A row's bits may not depend on how many rows there are: products keep to one algorithm, keys are cut at fixed
  // places. On the CPU that always holds.
  bool is_batch_invariant() const { return is_batch_invariant_; }
  void set_batch_invariant(bool on) { is_batch_invariant_ = on; }
  // Null unless somebody asked for named ranges.
  const RangeMarks* range_marks() const { return range_marks_; }
  void set_range_marks(const RangeMarks* marks) { range_marks_ = marks; }
  // Null while nobody measures; see op_times.h.
  OpTimes* op_times() const { return op_times_; }
  void set_op_times(OpTimes* times) { op_times_ = times; }

  // Contiguous, not initialised, on the context's device.
  Tensor empty(const Shape& shape, DType dtype) const {
    return Tensor(allocator_->allocate(shape.numel() * size_of(dtype)), shape, dtype);
  }
  // [rows, n] with room for `room` more columns
  Tensor empty_rows(int64_t rows, int64_t n, DType dtype, int64_t room) const {
    return with_room(allocator_->allocate(rows * (n + room) * size_of(dtype)), rows, n, room, dtype);
  }
  // Columns behind rows of n that on a CPU make the rows lie an odd number of cache lines apart: products then read
  // tiles of 16 rows where they lie, and results are spread over the memory's channels. 0 elsewhere.
  int64_t spread_room(int64_t n, DType dtype) const {
    const Device device = device_.is_meta() ? planned_.value_or(device_) : device_;
    return device.is_cpu() && dtype == DType::kBF16 && n % 64 == 0 ? 32 : 0;
  }
  // [rows, n] that products read or make
  Tensor empty_spread(int64_t rows, int64_t n, DType dtype) const {
    return empty_rows(rows, n, dtype, spread_room(n, dtype));
  }
  // The same for rows of any shape, which stay evenly spaced: spread where it is a matrix, contiguous elsewhere.
  Tensor empty_spread(const Shape& shape, DType dtype) const {
    return shape.rank() == 2 ? empty_spread(shape[0], shape[1], dtype) : empty(shape, dtype);
  }
  // [tokens, heads, d], spread by tokens: its rows of d are not evenly spaced
  Tensor empty_spread_heads(const Shape& shape, DType dtype) const {
    return empty_spread(shape[0], shape[1] * shape[2], dtype).split_last(shape[1]);
  }
  // Where values that could be made again from others are kept for the backward pass instead: a CPU has the memory, and
  // making them takes longer than reading them.
  bool keeps_values() const { return (device_.is_meta() ? planned_.value_or(device_) : device_).is_cpu(); }
  // True when an op must record itself: there is a tape and an input takes part in differentiation.
  bool records(std::initializer_list<const Tensor*> inputs) const {
    if (!tape_) return false;
    for (const Tensor* t : inputs)
      if (t && t->requires_grad()) return true;
    return false;
  }

 private:
  std::shared_ptr<ThreadPool> threads_;
  std::shared_ptr<Allocator> allocator_;
  Device device_;
  void* stream_ = nullptr;
  Tape* tape_ = nullptr;
  MathMode math_ = MathMode::kExact;
  OpTimes* op_times_ = nullptr;
  const RangeMarks* range_marks_ = nullptr;
  bool is_strict_ = false, is_batch_invariant_ = false;
  std::optional<Device> planned_;
};

// Names what is queued in a scope.
class RangeScope {
 public:
  RangeScope(const Context& ctx, const char* name) : marks_(ctx.range_marks()) {
    if (marks_) marks_->push(name);
  }
  ~RangeScope() {
    if (marks_) marks_->pop();
  }
  RangeScope(const RangeScope&) = delete;
  RangeScope& operator=(const RangeScope&) = delete;

 private:
  const RangeMarks* marks_;
};

// Turns recording off (or onto another tape) for a scope.
class TapeScope {
 public:
  TapeScope(Context& ctx, Tape* tape) : ctx_(ctx), before_(ctx.tape()) { ctx.set_tape(tape); }
  ~TapeScope() { ctx_.set_tape(before_); }
  TapeScope(const TapeScope&) = delete;
  TapeScope& operator=(const TapeScope&) = delete;

 private:
  Context& ctx_;
  Tape* before_;
};

}  // namespace pmetal
