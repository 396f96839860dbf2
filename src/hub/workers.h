// A few threads that wait for the network, each with a connection of its own. (The pool of base/threads is pinned and
// made for computing.)
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "hub/http.h"

namespace pmetal::hub {

using HubTask = std::function<void(HttpClient&)>;

// Runs the tasks in order on up to settings.connections threads and waits. `tick` is called on the caller's thread
// about twenty times a second; when it returns false `stop` is set. The first exception of a task sets `stop` too and
// is rethrown once all threads have ended.
void run_tasks(const Settings& settings, std::atomic<bool>& stop, const std::vector<HubTask>& tasks,
               const std::function<bool()>& tick);

}  // namespace pmetal::hub
