// pmetal dataset download: a dataset of the hub in the cache that Hugging Face's own tools use too, and on request one
// split of it as a file. Prints the folder, or the file.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_download.h"

namespace pmetal::jobs {

void run_dataset_download(const JobOptions& options, JobContext& job) {
  const auto& o = options.as<DatasetDownloadOptions>();
  job.phase("resolving_dataset", o.dataset);
  data::ConvertOptions convert;
  if (o.output) convert.format = data::file_format_of(*o.output);  // a wrong ending is told before the download
  const hub::Settings settings = hub::settings_from_environment();
  const hub::Snapshot s = hub::download_snapshot(settings, {hub::RepoKind::kDataset, o.dataset, o.revision},
                                                 hub::Purpose::kDataset, download_progress(job, o.dataset));
  report_download(job, o.dataset, s);
  Json document{{"dataset", o.dataset},
                {"revision", o.revision},
                {"commit", s.commit},
                {"path", s.folder.string()},
                {"files", s.files},
                {"bytes", s.bytes},
                {"bytes_fetched", s.bytes_fetched},
                {"unverified", s.unverified}};
  job.summary.output_path = s.folder.string();
  if (o.output) {
    convert.input = s.folder;
    convert.output = *o.output;
    convert.split = o.split;
    document["split"] = o.split;
    document["rows"] = data::convert(convert).written;
    document["output"] = *o.output;
    job.summary.output_path = *o.output;
  }
  job.artefact(*job.summary.output_path, "dataset");
  if (job.json)
    job.data() << document.dump(2) << "\n";
  else
    job.data() << *job.summary.output_path << "\n";
}

}  // namespace pmetal::jobs
