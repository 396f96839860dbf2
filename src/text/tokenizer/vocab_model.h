// A model whose tokens are the entries of one vocabulary.
#pragma once

#include <utility>

#include "text/tokenizer/model.h"
#include "text/tokenizer/vocab.h"

namespace pmetal::text {

class VocabModel : public Model {
 public:
  explicit VocabModel(Vocab vocab = {}) : vocab_(std::move(vocab)) {}
  std::optional<int32_t> token_to_id(std::string_view token) const override {
    const int32_t id = vocab_.find(token);
    return id < 0 ? std::nullopt : std::optional<int32_t>(id);
  }
  int32_t vocab_size() const override { return vocab_.size(); }
  int32_t id_limit() const override { return vocab_.id_limit(); }
  bool has_id(int32_t id) const override { return vocab_.has_id(id); }
  std::string_view id_to_token(int32_t id) const override { return vocab_.token(id); }

 protected:
  Vocab vocab_;
};

}  // namespace pmetal::text
