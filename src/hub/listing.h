// What a repository holds at one commit, and which of its files a purpose needs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hub/http.h"
#include "hub/names.h"

namespace pmetal::hub {

struct RepoFile {
  std::string name;         // checked: is_safe_path
  int64_t size = -1;        // -1: the list does not say
  std::string sha256 = {};  // of large files
  std::string blob = {};    // Git hash: of the contents of the others
};

struct RepoListing {
  std::string commit;
  std::vector<RepoFile> files;
};

// GET /api/models/<name>/revision/<revision>?blobs=true. Error(kNotFound) for an unknown name or revision or one
// without access, Error(kInvalidInput) for an answer that is none.
RepoListing list_repo(HttpClient& client, const Settings& settings, const RepoId& repo);

enum class Purpose {
  kModel,      // all but a second copy of the weights in another format; one quantization where there is only GGUF
  kTokenizer,  // tokenizer, template, configuration
  kDataset,    // the files that datasets are read from
};

std::vector<RepoFile> select_files(const std::vector<RepoFile>& files, Purpose purpose);
// whether a snapshot has what the purpose needs: every shard of an index, a tokenizer, a data file
bool is_complete(const fs::path& snapshot, Purpose purpose);

}  // namespace pmetal::hub
