#include "text/tokenizer/pre_tokenizers.h"
namespace pmetal::text { PreTokenizerPtr unicode_scripts_pre_tokenizer() { return nullptr; } }
