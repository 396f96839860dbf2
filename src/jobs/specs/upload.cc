#include "jobs/specs/upload.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = UploadOptions;
using enum FieldKind;

constexpr EnumName kRepoTypes[] = {{"model", static_cast<int>(RepoType::kModel)},
                                   {"dataset", static_cast<int>(RepoType::kDataset)}};

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(path), .kind = kPath, .group = "Upload",
     .help = "file or folder; hidden files and checkpoints/ stay here", .value_name = "PATH", .required = true,
     .is_positional = true},
    {PMETAL_FIELD(repo), .kind = kText, .group = "Upload", .help = "repository on the hub; made when it does not exist",
     .value_name = "ORG/NAME", .required = true},
    {PMETAL_FIELD(type), .kind = kEnum, .group = "Upload", .help = "what the repository holds", .options = kRepoTypes},
    {PMETAL_FIELD(revision), .kind = kText, .group = "Upload", .help = "branch", .value_name = "BRANCH"},
    {PMETAL_FIELD(folder), .kind = kText, .group = "Upload", .help = "folder of the repository; else its top",
     .value_name = "DIR"},
    {PMETAL_FIELD(message), .kind = kText, .group = "Upload", .help = "first line of the commit", .value_name = "TEXT"},
    {PMETAL_FIELD(private_repo), .kind = kToggle, .flag = "--private", .group = "Upload",
     .help = "a repository that is made can be seen by its owners only"},
};

}  // namespace

extern const JobSpec spec_upload = {
    .name = "upload",
    .summary = "put a model, adapter or dataset on the hub; what is there already is not sent again",
    .examples =
        "upload ./output --repo my-name/my-adapter --private\n"
        "upload rows.parquet --repo my-name/rows --type dataset --dry-run",
    .fields = kFields,
    .options = options_type<UploadOptions>(),
    .has_json = true,
    .has_dry_run = true,
};

}  // namespace pmetal::jobs
