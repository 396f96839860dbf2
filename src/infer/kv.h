// The KV store of a model.
#pragma once

#include "models/model.h"
#include "nn/kv_store.h"

namespace pmetal::infer {

nn::KvStore make_kv_store(Context& ctx, const models::Model& model, int64_t max_pages);

}  // namespace pmetal::infer
