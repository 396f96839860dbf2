#include "text/tokenizer/scanner.h"

namespace pmetal::text {

ScanFunction find_scanner(std::string_view) { return nullptr; }

}  // namespace pmetal::text
