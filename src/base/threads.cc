#include "base/threads.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace pmetal {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int i = 0; i < CPU_SETSIZE; ++i)
      if (CPU_ISSET(i, &set)) cpus.push_back(i);
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

template <class Done>
bool spin_until(Done&& done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

struct ThreadPool::Impl {
  std::mutex run_mutex;  // one run at a time
  std::mutex mutex;
  std::condition_variable wake, finished;
  std::atomic<uint64_t> generation{0};
  std::atomic<int> running{0};
  std::atomic<bool> stop{false};
  const FunctionRef<void(int)>* body = nullptr;
  std::exception_ptr error;
  std::vector<std::thread> threads;
  int n = 1;
  static inline thread_local const Impl* inside = nullptr;  // the pool whose body this thread runs

  void call(int worker) {
    const Impl* before = std::exchange(inside, this);
    try {
      (*body)(worker);
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
    inside = before;
  }

  void work(int worker, int cpu) {
    if (cpu >= 0) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(cpu, &set);
      pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    uint64_t seen = 0;
    for (;;) {
      const auto ready = [&] { return stop.load() || generation.load() != seen; };
      if (!spin_until(ready)) {
        std::unique_lock lock(mutex);
        wake.wait(lock, ready);
      }
      if (stop.load()) return;
      seen = generation.load();
      call(worker);
      if (running.fetch_sub(1) == 1) {
        std::lock_guard lock(mutex);
        finished.notify_one();
      }
    }
  }
};

ThreadPool::ThreadPool(int n_threads) : impl_(std::make_unique<Impl>()) {
  const std::vector<int> cpus = allowed_cpus();
  impl_->n = n_threads > 0 ? n_threads : static_cast<int>(cpus.size());
  const bool pin = impl_->n <= static_cast<int>(cpus.size());
  for (int i = 1; i < impl_->n; ++i)
    impl_->threads.emplace_back([this, i, cpu = pin ? cpus[static_cast<size_t>(i)] : -1] { impl_->work(i, cpu); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->wake.notify_all();
  for (std::thread& thread : impl_->threads) thread.join();
}

int ThreadPool::size() const { return impl_->n; }

void ThreadPool::run(FunctionRef<void(int)> body) {
  if (Impl::inside == impl_.get()) {
    for (int i = 0; i < impl_->n; ++i) body(i);
    return;
  }
  std::lock_guard one(impl_->run_mutex);
  impl_->body = &body;
  impl_->error = nullptr;
  impl_->running = impl_->n - 1;
  if (impl_->n > 1) {
    {
      std::lock_guard lock(impl_->mutex);
      impl_->generation.fetch_add(1);
    }
    impl_->wake.notify_all();
  }
  impl_->call(0);
  const auto done = [&] { return impl_->running.load() == 0; };
  if (!spin_until(done)) {
    std::unique_lock lock(impl_->mutex);
    impl_->finished.wait(lock, done);
  }
  if (impl_->error) std::rethrow_exception(impl_->error);
}

void ThreadPool::parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (n <= grain || impl_->n == 1 || Impl::inside == impl_.get()) return body(0, n);
  // about four pieces a worker, in whole grains
  const int64_t pieces = std::min<int64_t>((n + grain - 1) / grain, int64_t{4} * impl_->n);
  const int64_t step = ((n + pieces - 1) / pieces + grain - 1) / grain * grain;
  std::atomic<int64_t> next{0};
  run([&](int) {
    for (;;) {
      const int64_t begin = next.fetch_add(step);
      if (begin >= n) return;
      body(begin, std::min(n, begin + step));
    }
  });
}

}  // namespace pmetal
