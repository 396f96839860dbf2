// Joins a tokenizer to this folder's Encoder: offsets become bytes.
#pragma once

#include <memory>
#include <optional>

#include "data/example.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::data {

// `eos_id`: the model's end token, appended to formats without a template. Truncation and padding sections of the
// tokenizer's file do not apply.
Encoder make_encoder(std::shared_ptr<const text::Tokenizer> tokenizer, std::optional<int32_t> eos_id);

}  // namespace pmetal::data
