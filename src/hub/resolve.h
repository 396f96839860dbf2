// A name that a person gives becomes a path on this machine: an existing path is itself; a name of the hub is looked
// for in the cache and else downloaded; anything else is returned as it is, for the caller's own error.
#pragma once

#include <string>

#include "hub/download.h"

namespace pmetal::hub {

struct Resolved {
  fs::path path = {};
  bool is_from_hub = false;
  Snapshot download = {};  // where something was downloaded: files > 0
};

// `revision` is used for hub names only. Errors: as download_snapshot; offline, kNotFound when the cache has no
// complete copy.
Resolved resolve(const Settings& settings, const std::string& name, Purpose purpose, const OnProgress& on_progress,
                 const std::string& revision = "main");

}  // namespace pmetal::hub
