#include "base/error.h"
#include "text/tokenizer/tokenizer_impl.h"
namespace pmetal::text {
std::unique_ptr<Tokenizer> Tokenizer::from_sentencepiece(std::string_view, const std::string& name) {
  fail(ErrorCode::kUnsupported, "{}: SentencePiece .model files are not supported yet; use tokenizer.json", name);
}
PreTokenizerPtr unicode_scripts_pre_tokenizer() {
  fail(ErrorCode::kUnsupported, "the UnicodeScripts pre-tokenizer is not supported yet");
}
}  // namespace pmetal::text
