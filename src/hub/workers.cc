#include "hub/workers.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace pmetal::hub {

void run_tasks(const Settings& settings, std::atomic<bool>& stop, const std::vector<HubTask>& tasks,
               const std::function<bool()>& tick) {
  const size_t n_threads = std::min(tasks.size(), static_cast<size_t>(std::max(settings.connections, 1)));
  std::mutex mutex;
  std::condition_variable ended;
  size_t n_ended = 0;
  std::atomic<size_t> next{0};
  std::exception_ptr first;
  const auto work = [&] {
    try {
      HttpClient client(settings, stop);
      for (size_t i; !stop && (i = next.fetch_add(1)) < tasks.size();) tasks[i](client);
    } catch (const TransportError& e) {
      const std::scoped_lock lock(mutex);
      if (!first) first = std::make_exception_ptr(Error(ErrorCode::kIo, e.message));
      stop = true;
    } catch (...) {
      const std::scoped_lock lock(mutex);
      if (!first) first = std::current_exception();
      stop = true;
    }
    const std::scoped_lock lock(mutex);
    ++n_ended;
    ended.notify_one();
  };
  std::vector<std::jthread> threads;
  for (size_t i = 0; i < n_threads; ++i) threads.emplace_back(work);
  std::unique_lock lock(mutex);
  while (n_ended < n_threads) {
    ended.wait_for(lock, std::chrono::milliseconds(50));
    lock.unlock();
    if (!tick()) stop = true;
    lock.lock();
  }
  lock.unlock();
  threads.clear();
  if (first) std::rethrow_exception(first);
  if (stop) fail(ErrorCode::kCancelled, "stopped on request");
}

}  // namespace pmetal::hub
