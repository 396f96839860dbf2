// `pmetal upload`: a file or folder into a repository of the hub as one commit. Prints the repository's address.
#include <ostream>

#include <nlohmann/json.hpp>

#include "hub/upload.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/upload.h"

namespace pmetal::jobs {

void run_upload(const JobOptions& options, JobContext& job) {
  const auto& o = options.as<UploadOptions>();
  const hub::Settings settings = hub::settings_from_environment();
  const bool is_dataset = o.type == RepoType::kDataset;
  const hub::Uploaded u =
      hub::upload(settings,
                  {.repo = {is_dataset ? hub::RepoKind::kDataset : hub::RepoKind::kModel, o.repo, o.revision},
                   .source = o.path,
                   .folder = o.folder,
                   .message = o.message,
                   .is_private = o.private_repo,
                   .only_plan = job.dry_run},
                  transfer_progress(job, "uploading " + o.repo));
  const std::string url = settings.endpoint + (is_dataset ? "/datasets/" : "/") + o.repo;
  for (const std::string& name : u.left_out)
    job.log(LogLevel::kWarn, "{}: left out, as the repository's .gitignore asks", name);
  if (job.json) {
    job.data() << Json{{"repo", o.repo},         {"url", url},       {"commit", u.commit},
                       {"dry_run", job.dry_run}, {"sent", u.sent},   {"unchanged", u.unchanged},
                       {"left_out", u.left_out}, {"bytes", u.bytes}, {"bytes_sent", u.bytes_sent}}
                      .dump(2)
               << "\n";
    return;
  }
  job.log(LogLevel::kInfo, "{}: {} files, {:.3f} GB{}; {} unchanged", o.repo, u.sent.size(),
          static_cast<double>(u.bytes) / 1e9, job.dry_run ? " would be sent" : " sent", u.unchanged.size());
  if (job.dry_run)
    for (const std::string& name : u.sent) job.data() << name << "\n";
  else
    job.data() << url << "\n";
}

}  // namespace pmetal::jobs
