// Options of `pmetal memory`: none of its own.
#pragma once

namespace pmetal::jobs {

struct MemoryOptions {};

}  // namespace pmetal::jobs
