#include "jobs/hub_names.h"

#include <memory>

namespace pmetal::jobs {
namespace {

std::string local_path(const JobContext& job, const std::string& name, hub::Purpose purpose) {
  if (!hub::is_hub_id(name) || fs::exists(name)) return name;
  const hub::Resolved found =
      hub::resolve(hub::settings_from_environment(), name, purpose, download_progress(job, name));
  if (found.download.files > 0) report_download(job, name, found.download);
  return found.path.string();
}

}  // namespace

std::string local_model(const JobContext& job, const std::string& name) {
  return local_path(job, name, hub::Purpose::kModel);
}

std::string local_tokenizer(const JobContext& job, const std::string& name) {
  return local_path(job, name, hub::Purpose::kTokenizer);
}

std::optional<std::string> local_tokenizer(const JobContext& job, const std::optional<std::string>& name) {
  if (!name) return name;
  return local_tokenizer(job, *name);
}

std::string local_dataset(const JobContext& job, const std::string& name) {
  return local_path(job, name, hub::Purpose::kDataset);
}

hub::OnProgress download_progress(const JobContext& job, const std::string& name) {
  return transfer_progress(job, "downloading " + name);
}

hub::OnProgress transfer_progress(const JobContext& job, const std::string& label) {
  constexpr int64_t kStep = 1000;  // an event for each thousandth
  return [&job, label, last = std::make_shared<int64_t>(-1)](const hub::Progress& p) {
    const int64_t part = p.bytes > 0 ? static_cast<int64_t>(static_cast<double>(p.bytes_done) /
                                                            static_cast<double>(p.bytes) * static_cast<double>(kStep))
                                     : -1;
    if (part != *last) job.progress(label, p.bytes_done, p.bytes);
    *last = part;
    return !job.is_cancelled();
  };
}

void report_download(const JobContext& job, const std::string& name, const hub::Snapshot& snapshot) {
  job.log(LogLevel::kInfo, "{}: {} files, {:.3f} GB downloaded, commit {}", name, snapshot.files,
          static_cast<double>(snapshot.bytes_fetched) / 1e9, snapshot.commit);
  for (const std::string& file : snapshot.unverified)
    job.log(LogLevel::kWarn, "{}: {}: the server names no hash of it; only its length was checked", name, file);
}

}  // namespace pmetal::jobs
