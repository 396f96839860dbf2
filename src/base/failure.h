// What to tell the user about an exception that is no pmetal::Error: the file system's own and lack of memory get the
// object, the reason and what to do.
#pragma once

#include <exception>
#include <string>

namespace pmetal {

std::string failure_text(const std::exception& failure);

}  // namespace pmetal
