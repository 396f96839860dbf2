// The one pool of compute workers. Workers are pinned, spin at most 50 us for the next task, then park.
// How work is cut never changes bits: kernels cut by rows or fixed blocks, never by the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace pmetal {

// A borrowed callable: no allocation, valid while the call runs.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  FunctionRef(F&& f)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* o, Args... args) -> R { return (*static_cast<std::remove_reference_t<F>*>(o))(args...); }) {}
  R operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  // n_threads <= 0: one per core this process may run on. The calling thread is worker 0.
  explicit ThreadPool(int n_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;
  // Runs body(worker) once on every worker, worker in [0, size()), and waits. Not reentrant: called from inside a
  // body it runs all workers' shares on the caller. The first exception is rethrown after all have ended.
  void run(FunctionRef<void(int worker)> body);
  // body(begin, end) over [0, n) in pieces of at least `grain`, taken dynamically; pieces are multiples of grain.
  void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t begin, int64_t end)> body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pmetal
