// Filling a model from a checkpoint, and writing one.
#include <cmath>
#include <set>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/rng.h"
#include "formats/json.h"
#include "formats/sharded.h"
#include "models/checkpoint.h"
#include "ops/device.h"

namespace pmetal::models {
namespace {

constexpr int64_t kRowBlock = 256;  // rows drawn or converted at a time

uint64_t name_hash(const std::string& name) {  // FNV-1a: the stream of random numbers of a tensor
  uint64_t h = 0xcbf29ce484222325u;
  for (unsigned char c : name) h = (h ^ c) * 0x100000001b3u;
  return h;
}

// N(0, std²) by Box-Muller; the value of an element depends on seed, tensor name and index alone.
void draw_rows(uint64_t seed, uint64_t stream, float std, int64_t first_element, std::span<float> to) {
  const auto key = philox_key(seed);
  for (size_t i = 0; i < to.size();) {
    const uint64_t element = static_cast<uint64_t>(first_element) + i;
    const PhiloxBlock r =
        philox4x32(key, {static_cast<uint32_t>(element >> 2), static_cast<uint32_t>(element >> 34),
                         static_cast<uint32_t>(RngPurpose::kInit) << 8 | static_cast<uint32_t>(stream >> 56),
                         static_cast<uint32_t>(stream)});
    float z[4];
    for (size_t j = 0; j < 4; j += 2) {
      const float radius = std * std::sqrt(-2 * std::log(uniform_open(r[j])));
      const float angle = 6.2831853f * uniform_open(r[j + 1]);
      z[j] = radius * std::cos(angle);
      z[j + 1] = radius * std::sin(angle);
    }
    for (size_t lane = element & 3; lane < 4 && i < to.size(); ++lane, ++i) to[i] = z[lane];
  }
}

class Loader final : public ParameterVisitor {
 public:
  Loader(Context& ctx, Model& model, const Checkpoint& checkpoint, const LoadOptions& options)
      : ctx_(ctx), model_(model), checkpoint_(checkpoint), options_(options) {}

  void on(nn::Linear& l) override {
    matrix(l.name() + ".weight", l.out(), l.in(), model_.is_residual_output(l.name()), l.weight, l.trainable);
    if (!l.has_bias()) return;
    l.bias = vector(l.name() + ".bias", {l.out()}, 0);
  }
  void on(nn::Embedding& e) override {
    matrix(e.name() + ".weight", e.vocabulary(), e.dim(), false, e.weight, e.trainable);
  }
  void on(nn::Parameter& p) override { p.value = vector(p.name, p.shape, p.initial); }

  // Weights that share an input lie side by side on a GPU: without adapters they are one product (nn/linear.h).
  void on_group(std::span<nn::Linear* const> linears) override {
    if (ctx_.device().is_cuda() && !options_.for_training) {
      int64_t bytes = 0;
      for (const nn::Linear* l : linears) bytes += l->out() * l->in() * size_of(options_.dtype);
      group_ = ctx_.allocator().allocate(bytes);
      group_used_ = 0;
    }
    for (nn::Linear* l : linears) on(*l);
    group_ = {};
  }

  void check_unclaimed() const {
    for (const TensorInfo& t : checkpoint_.tensors())
      if (!claimed_.contains(t.name) && !model_.ignores(t.name))
        fail(ErrorCode::kInvalidInput,
             "{}: tensor \"{}\" {} belongs to no part of a {} model; the config does not fit the weights",
             checkpoint_.folder().string(), t.name, t.shape.to_string(), model_.info().model_type);
  }

 private:
  bool plan_only() const { return ctx_.device().is_meta(); }

  void claim(const std::string& name) {
    claimed_.insert(name);
    if (!checkpoint_.contains(name))
      fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" is missing; download the model again",
           checkpoint_.folder().string(), name);
  }

  Tensor vector(const std::string& name, const Shape& shape, float initial) {
    claim(name);
    if (plan_only()) return ctx_.empty(shape, options_.dtype);
    if (!checkpoint_.is_random()) return ops::to_device(ctx_, checkpoint_.vector(name, shape, options_.dtype));
    Tensor t = ctx_.empty(shape, options_.dtype);
    ops::fill(ctx_, t, initial);
    return t;
  }

  void matrix(const std::string& name, int64_t out, int64_t in, bool residual, quant::Weight& weight,
              Tensor& trainable) {
    claim(name);
    const quant::Format& dense = quant::format(name_of(options_.dtype));
    const quant::Format& to =
        options_.for_training ? dense : ops::preferred_format(ctx_.planned().value_or(ctx_.device()), dense);
    if (plan_only()) {
      weight = {&to, out, in, {}, 0};
      for (const quant::PlaneLayout& p : to.layout(out, in))
        weight.planes.push_back({ctx_.allocator().allocate(p.size_bytes), p.dtype});
    } else if (checkpoint_.is_random()) {
      float std = model_.info().initializer_range;
      if (residual && options_.scale_residual) std /= std::sqrt(2.f * static_cast<float>(model_.info().layers));
      weight = quant::allocate(to, out, in);
      const uint64_t stream = name_hash(name);
      const int64_t block = std::max(to.row_cut, kRowBlock);
      ctx_.threads().parallel_for(out, block, [&](int64_t begin, int64_t end) {
        std::vector<float> rows(static_cast<size_t>(block * in));
        for (int64_t r = begin; r < end; r += block) {
          const int64_t n = std::min(block, end - r);
          draw_rows(options_.seed, stream, std, r * in, std::span(rows).first(static_cast<size_t>(n * in)));
          to.encode_rows(weight, r, r + n, rows.data());
        }
      });
      weight = placed(weight);
    } else {
      weight = checkpoint_.matrix(name, out, in);
      const auto drop = [](const quant::Weight& from, int64_t begin, int64_t end) {
        const int64_t row = from.in * size_of(from.planes[0].dtype);
        drop_mapped_pages(from.planes[0].bytes.slice(begin * row, (end - begin) * row));
      };
      if (ctx_.device().is_cuda() && weight.format == &to) {  // straight from the mapped file
        const quant::Weight mapped = weight;
        weight = placed(mapped);
        drop(mapped, 0, out);
      } else {
        weight = placed(quant::repack(weight, to, ctx_.threads(), drop));
      }
    }
    if (options_.for_training) {
      trainable = Tensor(weight.planes[0].bytes, {out, in}, options_.dtype);
      weight = {};
    }
  }

  // on the device, in the group's memory while one is loaded
  quant::Weight placed(const quant::Weight& weight) {
    if (!group_ || !weight.format->is_dense) return ops::to_device(ctx_, weight);
    quant::Weight copy = weight;
    const int64_t bytes = weight.planes[0].bytes.size_bytes();
    copy.planes[0].bytes = group_.slice(group_used_, bytes);
    group_used_ += bytes;
    ops::upload(ctx_, Tensor(weight.planes[0].bytes, {bytes}, DType::kU8),
                Tensor(copy.planes[0].bytes, {bytes}, DType::kU8));
    return copy;
  }

  Buffer group_;
  int64_t group_used_ = 0;
  Context& ctx_;
  Model& model_;
  const Checkpoint& checkpoint_;
  const LoadOptions& options_;
  std::set<std::string> claimed_;
};

class Collector final : public ParameterVisitor {
 public:
  struct Item {
    std::string name;
    int64_t rows, columns;  // columns 0: a vector of `rows`
    const quant::Weight* weight = nullptr;
    Tensor value;
  };
  std::vector<Item> items;
  void on(nn::Linear& l) override {
    items.push_back({l.name() + ".weight", l.out(), l.in(), &l.weight, l.trainable});
    if (l.has_bias()) items.push_back({l.name() + ".bias", l.out(), 0, nullptr, l.bias});
  }
  void on(nn::Embedding& e) override {
    items.push_back({e.name() + ".weight", e.vocabulary(), e.dim(), &e.weight, e.trainable});
  }
  void on(nn::Parameter& p) override { items.push_back({p.name, p.shape.numel(), 0, nullptr, p.value}); }
};

std::string torch_name(DType dtype) {
  return dtype == DType::kBF16 ? "bfloat16" : dtype == DType::kF16 ? "float16" : "float32";
}

}  // namespace

void load_weights(Context& ctx, Model& model, const Checkpoint& checkpoint, const LoadOptions& options) {
  model.dtype = options.dtype;
  Loader loader(ctx, model, checkpoint, options);
  model.visit(loader);
  loader.check_unclaimed();
}

void save_model(Model& model, const nlohmann::ordered_json& config, const fs::path& folder, DType dtype,
                int64_t max_shard_bytes) {
  Collector all;
  model.visit(all);
  std::vector<formats::TensorDeclaration> declarations;
  for (const auto& item : all.items)
    declarations.push_back(
        {item.name, dtype,
         item.columns ? std::vector<int64_t>{item.rows, item.columns} : std::vector<int64_t>{item.rows}});
  formats::ShardedWriter writer(folder, std::move(declarations), max_shard_bytes);
  for (const formats::TensorDeclaration& d : writer.order()) {
    const auto item = std::find_if(all.items.begin(), all.items.end(), [&](const auto& i) { return i.name == d.name; });
    const int64_t columns = std::max<int64_t>(item->columns, 1);
    const Tensor value = item->value.defined() ? ops::host_copy(item->value) : Tensor();
    const quant::Weight weight = value.defined() ? quant::Weight{} : ops::host_copy(*item->weight);
    std::vector<float> rows;
    std::vector<std::byte> bytes;
    for (int64_t r = 0; r < item->rows; r += kRowBlock) {
      const int64_t n = std::min(kRowBlock, item->rows - r);
      rows.resize(static_cast<size_t>(n * columns));
      bytes.resize(static_cast<size_t>(n * columns * size_of(dtype)));
      if (value.defined()) {
        convert(value.bytes() + r * columns * size_of(value.dtype()), value.dtype(), rows.data(), DType::kF32,
                n * columns);
      } else {
        weight.format->decode_rows(weight, r, r + n, rows.data());
      }
      convert(rows.data(), DType::kF32, bytes.data(), dtype, n * columns);
      writer.write(d.name, bytes);
    }
  }
  writer.finish();
  nlohmann::ordered_json written = config;
  const char* key = written.contains("torch_dtype") && !written.contains("dtype") ? "torch_dtype" : "dtype";
  written[key] = torch_name(dtype);
  if (!written.contains("architectures"))
    written["architectures"] = {std::string(family_of(config, "config.json").architecture)};
  write_file_atomic(folder / "config.json", formats::dump_json(written) + "\n");
}

}  // namespace pmetal::models
