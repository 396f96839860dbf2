// pmetal fuse: an adapter merged into the weights of its base model, streamed row block by row block from the mapped
// checkpoint to the new one: at no time is more than a block in memory.
#include <ostream>

#include <nlohmann/json.hpp>

#include "adapters/adapter.h"
#include "base/file.h"
#include "formats/json.h"
#include "formats/sharded.h"
#include "jobs/context.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/fuse.h"
#include "models/checkpoint.h"

namespace pmetal::jobs {
namespace {

constexpr int64_t kRowBlock = 256;

// every tensor of the checkpoint in turn; those the adapter changes on the way
class Fuser {
 public:
  Fuser(const models::Checkpoint& checkpoint, adapters::Adapter& adapter, ThreadPool& threads, bool accurate)
      : checkpoint_(checkpoint), adapter_(adapter), threads_(threads), accurate_(accurate) {}

  // The tied head (its module) and the table whose rows it has, where the merged model needs both.
  void untie(std::string head, std::string table) {
    head_ = std::move(head);
    table_ = std::move(table);
  }

  void write(const fs::path& folder, const JobContext& job) {
    std::vector<formats::TensorDeclaration> declarations;
    for (const models::TensorInfo& t : checkpoint_.tensors()) {
      const std::vector<int64_t> shape(t.shape.dims().begin(), t.shape.dims().end());
      if (t.name == head_ + ".weight") continue;  // a copy of the table, which older versions saved
      declarations.push_back({t.name, t.dtype, shape});
      if (!table_.empty() && t.name == table_ + ".weight") declarations.push_back({head_ + ".weight", t.dtype, shape});
    }
    formats::ShardedWriter writer(folder, declarations);
    int64_t done = 0;
    for (const formats::TensorDeclaration& d : writer.order()) {
      job.stop_if_cancelled();
      job.progress("tensors", ++done, static_cast<int64_t>(declarations.size()));
      const bool is_weight = d.name.ends_with(".weight"), is_bias = d.name.ends_with(".bias");
      const std::string module = d.name.substr(0, d.name.rfind('.'));
      if (is_weight && d.shape.size() == 2 && (adapter_.changes(module) || (!table_.empty() && module == head_)))
        matrix(writer, d, module);
      else if (is_bias && adapter_.changes(module))
        bias(writer, d, module);
      else
        copy(writer, d);
    }
    writer.finish();
  }

 private:
  void matrix(formats::ShardedWriter& writer, const formats::TensorDeclaration& d, const std::string& module) {
    const bool is_untied = !table_.empty() && module == head_;
    const quant::Weight w = checkpoint_.matrix(is_untied ? table_ + ".weight" : d.name, d.shape[0], d.shape[1]);
    if (adapter_.wants_columns(module))
      adapter_.measure(
          module, w.out, w.in,
          [&](int64_t begin, int64_t n, float* to) { w.format->decode_rows(w, begin, begin + n, to); }, threads_);
    std::vector<float> rows(static_cast<size_t>(kRowBlock * w.in));
    std::vector<std::byte> bytes(static_cast<size_t>(kRowBlock * w.in * size_of(d.dtype)));
    for (int64_t r = 0; r < w.out; r += kRowBlock) {
      const int64_t n = std::min(kRowBlock, w.out - r);
      threads_.parallel_for(n, 16, [&](int64_t begin, int64_t end) {
        float* to = rows.data() + begin * w.in;
        w.format->decode_rows(w, r + begin, r + end, to);
        adapter_.merge_rows(module, r + begin, end - begin, to, accurate_);
        convert(to, DType::kF32, bytes.data() + begin * w.in * size_of(d.dtype), d.dtype, (end - begin) * w.in);
      });
      writer.write(d.name, std::span(bytes).first(static_cast<size_t>(n * w.in * size_of(d.dtype))));
    }
    drop_mapped_pages(w.planes[0].bytes);
  }

  void bias(formats::ShardedWriter& writer, const formats::TensorDeclaration& d, const std::string& module) {
    const Tensor b = checkpoint_.vector(d.name, Shape{d.shape[0]}, DType::kF32);
    adapter_.merge_bias(module, d.shape[0], b.data<float>());
    std::vector<std::byte> bytes(static_cast<size_t>(d.size_bytes()));
    convert(b.bytes(), DType::kF32, bytes.data(), d.dtype, d.shape[0]);
    writer.write(d.name, bytes);
  }

  void copy(formats::ShardedWriter& writer, const formats::TensorDeclaration& d) {
    const Buffer bytes = checkpoint_.raw(d.name);
    writer.write(d.name, std::span(bytes.data(), static_cast<size_t>(bytes.size_bytes())));
    drop_mapped_pages(bytes);
  }

  const models::Checkpoint& checkpoint_;
  adapters::Adapter& adapter_;
  ThreadPool& threads_;
  bool accurate_;
  std::string head_, table_;
};

}  // namespace

void run_fuse(const JobOptions& options, JobContext& job) {
  const FuseOptions& o = options.as<FuseOptions>();
  job.phase("resolving_model", o.model);
  const auto checkpoint = models::Checkpoint::open(local_model(job, o.model));
  if (checkpoint->is_random()) fail(ErrorCode::kUsage, "--model {}: fuse needs a checkpoint folder", o.model);
  const auto threads = std::make_shared<ThreadPool>(static_cast<int>(o.threads));
  Context ctx(threads);
  const auto model = models::build(checkpoint->config(), checkpoint->source());
  model->dtype = DType::kF32;  // of the adapter's tensors
  const std::string lora = local_model(job, o.lora);
  const auto adapter = adapters::Adapter::load(ctx, *model, lora, {.alpha = o.alpha, .rank = o.rank});

  struct Check final : models::ParameterVisitor {
    const adapters::Adapter& a;
    const models::Checkpoint& c;
    int64_t changed = 0;
    Check(const adapters::Adapter& adapter, const models::Checkpoint& checkpoint) : a(adapter), c(checkpoint) {}
    void on(nn::Linear& l) override {
      if (!a.changes(l.name())) return;
      ++changed;
      if (!c.contains(l.name() + ".weight"))
        fail(ErrorCode::kInvalidInput, "{}: tensor \"{}.weight\" is missing", c.folder().string(), l.name());
      refuse_new_bias(l);
    }
    void refuse_new_bias(const nn::Linear& l) const {
      if (a.adds_bias(l.name()) && !l.has_bias())
        fail(ErrorCode::kUnsupported,
             "module \"{}\" has no bias in this architecture; an adapter with lora_bias cannot be merged into it, keep "
             "it as an adapter",
             l.name());
    }
    void on(nn::Embedding& e) override {
      changed += a.changes(e.name());
      table = e.name();
    }
    void on(nn::Parameter&) override {}
    std::string table;
  } check(*adapter, *checkpoint);
  model->visit(check);
  const std::string head = model->head().linear->name();
  const bool is_tied = model->info().tied_head;
  const bool unties = is_tied && !adapter->keeps_head_tied(*model);
  if (is_tied) {  // no tensor of the checkpoint, so the visit leaves it out
    check.changed += adapter->changes(head);
    check.refuse_new_bias(*model->head().linear);
  }
  if (unties)
    job.log(LogLevel::kInfo, "head and token table are no longer one matrix: the merged model gets a head of its own");

  int64_t bytes = 0;
  for (const models::TensorInfo& t : checkpoint->tensors()) bytes += t.size_bytes;
  if (job.dry_run) {
    job.data() << fmt::format("model    {}\nadapter  {} changes {} modules\nwrites   {:.3f} GB to {}\n", o.model,
                              o.lora, check.changed, static_cast<double>(bytes) / 1e9, o.output_dir);
    return;
  }
  job.phase("merging_shards", o.output_dir);
  AtomicDirectory out(o.output_dir);
  Fuser fuser(*checkpoint, *adapter, *threads, o.accurate);
  if (is_tied) fuser.untie(head, unties ? check.table : "");
  fuser.write(out.temporary(), job);
  nlohmann::ordered_json config = checkpoint->config();
  if (unties) config["tie_word_embeddings"] = false;
  write_file_atomic(out.temporary() / "config.json", formats::dump_json(config) + "\n");
  models::copy_sidecars(checkpoint->folder(), out.temporary());
  models::copy_sidecars(lora, out.temporary());  // the template the adapter was trained with comes along
  out.commit();
  job.artefact(o.output_dir, "model");
  job.summary.output_path = o.output_dir;
}

}  // namespace pmetal::jobs
