// Options of `pmetal info`: none of its own.
#pragma once

namespace pmetal::jobs {

struct InfoOptions {};

}  // namespace pmetal::jobs
