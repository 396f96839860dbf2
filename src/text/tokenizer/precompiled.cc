#include "base/error.h"
#include "text/tokenizer/normalizers.h"
namespace pmetal::text {
NormalizerPtr precompiled_normalizer(std::string, const std::string& where) {
  fail(ErrorCode::kUnsupported, "{}: the Precompiled normalizer is not supported yet", where);
}
}  // namespace pmetal::text
