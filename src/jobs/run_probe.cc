// pmetal probe: run a model on given token ids and write logits and, on request, hidden states, loss, gradients and a
// greedy continuation, as safetensors. It is how we are compared with other implementations.
#include <charconv>
#include <map>
#include <set>

#include "formats/safetensors.h"
#include "infer/generate.h"
#include "jobs/model_session.h"
#include "jobs/spec.h"
#include "jobs/specs/probe.h"
#include "nn/padded_batch.h"
#include "ops/head_loss.h"

namespace pmetal::jobs {
namespace {

constexpr int64_t kMaxCells = int64_t{1} << 26;  // ids of one probe: logits of more would not fit any memory

struct Inputs {
  int64_t rows = 0, columns = 0;
  std::vector<int64_t> ids, mask, labels;  // [rows, columns]; mask and labels may be empty
};

// "1,2,3;4,5": rows shorter than the longest are padded on the right (mask 0)
Inputs parse_ids(const std::string& text) {
  std::vector<std::vector<int64_t>> rows(1);
  const char* at = text.data();
  const char* end = at + text.size();
  while (at < end) {
    while (at < end && *at == ' ') ++at;
    int64_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc())
      fail(ErrorCode::kUsage, "--input-ids: expected a token id at \"{}\"; write 1,2,3;4,5",
           std::string(at, std::min<size_t>(8, static_cast<size_t>(end - at))));
    rows.back().push_back(id);
    at = next;
    while (at < end && *at == ' ') ++at;
    if (at == end) break;
    if (*at == ';')
      rows.emplace_back();
    else if (*at != ',')
      fail(ErrorCode::kUsage, "--input-ids: unexpected '{}'; write 1,2,3;4,5", *at);
    ++at;
  }
  Inputs in;
  in.rows = static_cast<int64_t>(rows.size());
  bool ragged = false;
  for (const auto& r : rows) {
    if (r.empty()) fail(ErrorCode::kUsage, "--input-ids: an empty row; write 1,2,3;4,5");
    ragged |= in.columns != 0 && static_cast<int64_t>(r.size()) != in.columns;
    in.columns = std::max(in.columns, static_cast<int64_t>(r.size()));
  }
  for (const auto& r : rows)
    for (int64_t c = 0; c < in.columns; ++c) {
      const bool has = c < static_cast<int64_t>(r.size());
      in.ids.push_back(has ? r[static_cast<size_t>(c)] : 0);
      if (ragged) in.mask.push_back(has);
    }
  return in;
}

std::vector<int64_t> read_integers(const formats::TensorView& t, const std::string& source) {
  std::vector<int64_t> v(static_cast<size_t>(t.n_elements()));
  for (size_t i = 0; i < v.size(); ++i) {
    const std::byte* p = t.bytes.data() + static_cast<int64_t>(i) * size_of(t.dtype);
    const auto as = [&]<class T>(T) {
      T x;
      std::memcpy(&x, p, sizeof x);
      return static_cast<int64_t>(x);
    };
    switch (t.dtype) {
      case DType::kI64: v[i] = as(int64_t{}); break;
      case DType::kI32: v[i] = as(int32_t{}); break;
      case DType::kU8:
      case DType::kBool: v[i] = as(uint8_t{}); break;
      default:
        fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" is {}; i64, i32, u8 or bool is needed", source, t.name,
             name_of(t.dtype));
    }
  }
  return v;
}

Inputs read_inputs(const std::string& path) {
  const formats::SafetensorsFile file = formats::SafetensorsFile::open(path);
  const formats::TensorView& ids = file.at("input_ids");
  if (ids.shape.empty() || ids.shape.size() > 2 || ids.n_elements() == 0)
    fail(ErrorCode::kInvalidInput, "{}: tensor \"input_ids\" must be [rows, columns] and not empty", path);
  Inputs in;
  in.columns = ids.shape.back();
  in.rows = ids.shape.size() == 2 ? ids.shape[0] : 1;
  in.ids = read_integers(ids, path);
  for (const auto& [name, to] : {std::pair{"attention_mask", &in.mask}, std::pair{"labels", &in.labels}}) {
    const formats::TensorView* t = file.find(name);
    if (!t) continue;
    if (t->shape != ids.shape)
      fail(ErrorCode::kInvalidInput, "{}: tensor \"{}\" and \"input_ids\" differ in shape", path, name);
    *to = read_integers(*t, path);
  }
  return in;
}

void check(const Inputs& in, int64_t vocabulary) {
  if (in.rows * in.columns > kMaxCells)
    fail(ErrorCode::kInvalidInput, "{} token ids are too many for one probe", in.rows * in.columns);
  for (size_t i = 0; i < in.ids.size(); ++i) {
    const bool kept = in.mask.empty() || in.mask[i] != 0;
    if (in.ids[i] < 0 || in.ids[i] >= vocabulary) {
      if (kept || !in.labels.empty())
        fail(ErrorCode::kInvalidInput, "token id {} at row {}, column {} is outside the vocabulary of {}", in.ids[i],
             static_cast<int64_t>(i) / in.columns, static_cast<int64_t>(i) % in.columns, vocabulary);
    }
    if (!in.labels.empty() && in.labels[i] != -100 && (in.labels[i] < 0 || in.labels[i] >= vocabulary))
      fail(ErrorCode::kInvalidInput, "label {} at row {}, column {} is outside the vocabulary of {}", in.labels[i],
           static_cast<int64_t>(i) / in.columns, static_cast<int64_t>(i) % in.columns, vocabulary);
  }
}

// named f32 / i64 results, written together at the end
class Results {
 public:
  // rows of `t` [tokens, n] put back into the matrix, other rows zero
  void add_rows(const std::string& name, Context& ctx, const Tensor& t, const nn::PaddedBatch& p, int64_t rows,
                int64_t columns) {
    const int64_t n = t.dim(1);
    std::vector<float> all(static_cast<size_t>(rows * columns * n));
    const std::vector<float> values = floats(ctx, t);
    for (size_t i = 0; i < p.row_of.size(); ++i)
      if (p.kept[static_cast<size_t>(p.row_of[i])])
        std::copy_n(values.data() + static_cast<int64_t>(i) * n, n, all.data() + p.row_of[i] * n);
    add(name, std::move(all), {rows, columns, n});
  }
  void add(const std::string& name, std::vector<float> values, std::vector<int64_t> shape) {
    declarations_.push_back({name, DType::kF32, std::move(shape)});
    floats_[name] = std::move(values);
  }
  void add(const std::string& name, std::vector<int64_t> values, std::vector<int64_t> shape) {
    declarations_.push_back({name, DType::kI64, std::move(shape)});
    integers_[name] = std::move(values);
  }
  void write(const std::string& path) {
    formats::SafetensorsWriter writer(path, declarations_);
    for (const formats::TensorDeclaration& d : writer.order()) {
      if (d.dtype == DType::kF32)
        writer.write(d.name, std::as_bytes(std::span(floats_.at(d.name))));
      else
        writer.write(d.name, std::as_bytes(std::span(integers_.at(d.name))));
    }
    writer.finish();
  }
  static std::vector<float> floats(Context& ctx, const Tensor& t) {
    const Tensor host = ops::to_host(ctx, t);
    std::vector<float> v(static_cast<size_t>(host.numel()));
    convert(host.bytes(), host.dtype(), v.data(), DType::kF32, host.numel());
    return v;
  }

 private:
  std::vector<formats::TensorDeclaration> declarations_;
  std::map<std::string, std::vector<float>> floats_;
  std::map<std::string, std::vector<int64_t>> integers_;
};

// makes the named parameters leaves; the rest stays frozen
class LeafMaker final : public models::ParameterVisitor {
 public:
  explicit LeafMaker(const std::vector<std::string>& names) : wanted_(names.begin(), names.end()) {}
  std::map<std::string, Tensor> leaves;
  void on(nn::Linear& l) override {
    take(l.name() + ".weight", l.trainable);
    if (l.bias.defined()) take(l.name() + ".bias", l.bias);
  }
  void on(nn::Embedding& e) override { take(e.name() + ".weight", e.trainable); }
  void on(nn::Parameter& p) override { take(p.name, p.value); }
  void take(const std::string& name, Tensor& slot) {
    known_.push_back(name);
    if (!slot.defined() || !wanted_.contains(name)) return;
    slot = make_leaf(slot, name);
    leaves[name] = slot;
  }
  void require_all() const {
    for (const std::string& name : wanted_) {
      if (leaves.contains(name)) continue;
      fail(ErrorCode::kUsage, "--grads: the model has no parameter \"{}\"; its parameters are named like \"{}\"", name,
           known_.empty() ? "" : known_[known_.size() / 2]);
    }
  }

 private:
  std::set<std::string> wanted_;
  std::vector<std::string> known_;
};

}  // namespace

void run_probe(const JobOptions& options, JobContext& job) {
  const ProbeOptions& o = options.as<ProbeOptions>();
  const Inputs in = o.inputs ? read_inputs(*o.inputs) : parse_ids(*o.input_ids);
  ModelSession s = open_session(job, {.model = o.model,
                                      .adapter = o.adapter,
                                      .dtype = o.dtype,
                                      .device = o.device,
                                      .threads = o.threads,
                                      .for_training = !o.grads.empty()});
  Context& ctx = *s.ctx;
  check(in, s.model->info().vocabulary);
  const bool wants_loss = o.loss || !o.grads.empty();
  std::vector<int64_t> labels;
  if (wants_loss) {
    labels = in.labels;
    if (labels.empty()) {
      labels = in.ids;
      for (size_t i = 0; i < labels.size(); ++i)
        if (!in.mask.empty() && !in.mask[i]) labels[i] = -100;
    }
  }
  const nn::PaddedBatch p = nn::make_padded_batch(ctx, in.rows, in.columns, in.ids, in.mask, labels);
  if (p.row_of.empty()) fail(ErrorCode::kInvalidInput, "attention_mask: every position is padding; nothing can be run");

  LeafMaker leaves(o.grads);
  s.model->visit(leaves);
  std::set<std::string> transposed;  // in memory, against the file
  if (s.adapter)
    for (const adapters::AdapterParameter& a : s.adapter->parameters()) {
      leaves.take(a.key, *a.value);
      if (a.is_transposed) transposed.insert(a.key);
    }
  leaves.require_all();

  job.phase("custom", "forward");
  Results results;
  Tape tape = ops::make_tape();
  TapeScope scope(ctx, o.grads.empty() ? nullptr : &tape);
  std::vector<Tensor> taps;
  models::ForwardOptions forward;
  if (o.hidden_states) forward.taps = &taps;
  const Tensor hidden = models::forward(ctx, *s.model, p.batch, forward);
  {
    TapeScope off(ctx, nullptr);
    results.add_rows("logits", ctx, models::logits(ctx, *s.model, hidden.detached(), &p.batch), p, in.rows, in.columns);
  }
  for (size_t i = 0; i < taps.size(); ++i)
    results.add_rows(fmt::format("hidden_states.{}", i), ctx, taps[i], p, in.rows, in.columns);

  if (wants_loss) {
    if (p.labels.empty()) fail(ErrorCode::kInvalidInput, "labels: no position is scored, so there is no loss");
    const Shape n{static_cast<int64_t>(p.labels.size())};
    const Tensor rows = ops::to_device(ctx, host_tensor<int32_t>(p.label_rows, n, DType::kI32));
    const Tensor targets = ops::to_device(ctx, host_tensor<int32_t>(p.labels, n, DType::kI32));
    const std::vector<float> scale(p.labels.size(), 1.f / static_cast<float>(p.labels.size()));
    const ops::HeadLoss loss = models::loss(ctx, *s.model, ops::gather_rows(ctx, hidden, rows), targets,
                                            ops::to_device(ctx, host_tensor<float>(scale, n, DType::kF32)));
    results.add("loss", std::vector<float>{ops::item(ctx, loss.loss)}, {1});
    if (!o.grads.empty()) {
      Tensor one = ctx.empty({1}, DType::kF32);
      ops::fill(ctx, one, 1);
      tape.backward(ctx, loss.loss, one);
      for (const auto& [name, leaf] : leaves.leaves) {
        const Tensor& g = leaf.variable()->grad;
        std::vector<int64_t> shape(leaf.shape().dims().begin(), leaf.shape().dims().end());
        std::vector<float> values =
            g.defined() ? Results::floats(ctx, g) : std::vector<float>(static_cast<size_t>(leaf.numel()));
        if (transposed.contains(name)) {
          const std::vector<float> rows = values;
          for (int64_t i = 0; i < shape[0]; ++i)
            for (int64_t j = 0; j < shape[1]; ++j)
              values[static_cast<size_t>(j * shape[0] + i)] = rows[static_cast<size_t>(i * shape[1] + j)];
          std::swap(shape[0], shape[1]);
        }
        results.add("grad." + name, std::move(values), shape);
      }
    }
  }
  if (o.generate) {
    TapeScope off(ctx, nullptr);
    std::vector<std::vector<int32_t>> prompts(static_cast<size_t>(in.rows));
    for (size_t i = 0; i < in.ids.size(); ++i)
      if (in.mask.empty() || in.mask[i])
        prompts[i / static_cast<size_t>(in.columns)].push_back(static_cast<int32_t>(in.ids[i]));
    std::vector<int64_t> generated;
    for (const auto& prompt : prompts) {
      if (prompt.empty())
        fail(ErrorCode::kInvalidInput, "attention_mask: a row is all padding; nothing can be generated from it");
      for (int32_t id : infer::generate_greedy(ctx, *s.model, prompt, *o.generate)) generated.push_back(id);
    }
    results.add("generated", std::move(generated), {in.rows, *o.generate});
  }
  results.write(o.output);
  job.artefact(o.output, "probe");
}

}  // namespace pmetal::jobs
