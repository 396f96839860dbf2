// Names that a person gives for models, tokenizers and data, as paths on this machine: an existing path stays as it is,
// a name of the hub (org/name) is taken from the cache or downloaded, with progress events. A name that is neither is
// returned for the caller's own error.
#pragma once

#include <optional>
#include <string>

#include "hub/resolve.h"
#include "jobs/context.h"

namespace pmetal::jobs {

std::string local_model(const JobContext& job, const std::string& name);  // also adapters; random:CONFIG.json stays
std::string local_tokenizer(const JobContext& job, const std::string& name);
std::optional<std::string> local_tokenizer(const JobContext& job, const std::optional<std::string>& name);
std::string local_dataset(const JobContext& job, const std::string& name);

// shows a download as progress events and stops it when the job is cancelled
hub::OnProgress download_progress(const JobContext& job, const std::string& name);
hub::OnProgress transfer_progress(const JobContext& job, const std::string& label);  // likewise for what `label` says
// logs what was fetched, and warns of files that could not be checked
void report_download(const JobContext& job, const std::string& name, const hub::Snapshot& snapshot);

}  // namespace pmetal::jobs
