// `pmetal download`: a snapshot in the cache that Hugging Face's own tools use too. Prints its folder.
#include <ostream>

#include <nlohmann/json.hpp>

#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/download.h"

namespace pmetal::jobs {

void run_download(const JobOptions& options, JobContext& job) {
  const auto& o = options.as<DownloadOptions>();
  job.phase("resolving_model", o.model);
  const hub::Settings settings = hub::settings_from_environment();
  const hub::Snapshot s = hub::download_snapshot(settings, {hub::RepoKind::kModel, o.model, o.revision},
                                                 hub::Purpose::kModel, download_progress(job, o.model));
  report_download(job, o.model, s);
  job.artefact(s.folder.string(), "model");
  job.summary.output_path = s.folder.string();
  if (job.json)
    job.data() << Json{{"model", o.model},
                       {"revision", o.revision},
                       {"commit", s.commit},
                       {"path", s.folder.string()},
                       {"files", s.files},
                       {"bytes", s.bytes},
                       {"bytes_fetched", s.bytes_fetched},
                       {"unverified", s.unverified}}
                      .dump(2)
               << "\n";
  else
    job.data() << s.folder.string() << "\n";
}

}  // namespace pmetal::jobs
