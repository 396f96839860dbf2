#include "jobs/quickstart.h"

#include <algorithm>
#include <cstdlib>
#include <ostream>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "data/loader.h"
#include "data/synthetic.h"
#include "infer/generate.h"
#include "jobs/model_session.h"
#include "jobs/text_session.h"
#include "jobs/training.h"
#include "text/tokenizer/bpe_trainer.h"

namespace pmetal::jobs {
namespace {

constexpr std::string_view kChatMl =
    "{%- for message in messages -%}\n<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}\n"
    "{%- if add_generation_prompt -%}\n<|im_start|>assistant\n{% endif -%}\n";
constexpr int64_t kAnswerTokens = 24;

using Rows = std::vector<data::SyntheticRow>;

void write_tokenizer(const fs::path& folder, int64_t vocabulary, std::string_view corpus, std::string_view chats) {
  text::BpeTrainer trainer({.vocab_size = static_cast<int32_t>(vocabulary),
                            .special_tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}});
  trainer.add(corpus);
  trainer.add(chats);
  write_file_atomic(folder / "tokenizer.json", trainer.finish());
  Json config;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["eos_token"] = "<|im_end|>";
  config["pad_token"] = "<|endoftext|>";
  config["model_max_length"] = 512;
  write_file_atomic(folder / "tokenizer_config.json", config.dump(2) + "\n");
  write_file_atomic(folder / "chat_template.jinja", kChatMl);
  Json generation;
  generation["eos_token_id"] = {2, 0};
  generation["pad_token_id"] = 0;
  generation["do_sample"] = false;
  write_file_atomic(folder / "generation_config.json", generation.dump(2) + "\n");
}

// how a person calls this program: by its name when the shell would find it, else by its path from here
std::string program() {
  std::error_code ignored;
  const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
  const char* path = std::getenv("PATH");
  for (std::string_view rest = path ? path : ""; !rest.empty();) {
    const size_t end = std::min(rest.find(':'), rest.size());
    if (fs::equivalent(fs::path(rest.substr(0, end)) / "pmetal", self, ignored)) return "pmetal";
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const fs::path near = self.lexically_proximate(fs::current_path(ignored));
  return near.empty() || *near.begin() == ".." ? self.string()
         : near.has_parent_path()              ? near.string()
                                               : "./" + near.string();
}

train::TrainOptions train_options(int64_t steps, int64_t batch, double lr, uint64_t seed) {
  train::TrainOptions t;
  t.batch_size = batch;
  t.accumulation = 1;
  t.max_steps = t.total_steps = steps;
  t.schedule.base = lr;
  t.schedule.total = steps;
  t.schedule.warmup = steps / 20;
  t.schedule.min_ratio = 0.05;
  t.adamw.weight_decay = 0;
  t.seed = seed;
  return t;
}

class Quickstart {
 public:
  Quickstart(const QuickstartOptions& options, const RecipeSpec& recipe, JobContext& job)
      : o_(options), recipe_(recipe), job_(job), out_(options.output_dir), observer_(job, nullptr, 1) {
    for (const fs::path& folder : {text_, base_, adapter_}) fs::create_directories(folder);
  }

  void write_text() {
    job_.phase("custom", "writing text");
    const std::string corpus = data::corpus(o_.seed, recipe_.corpus_bytes);
    write_file_atomic(text_ / "corpus.txt", corpus);
    Rows known;
    for (const data::SyntheticTask& task : data::synthetic_tasks())
      if (task.is_in_corpus)
        for (data::SyntheticRow& row :
             data::instruction_set(task.name, task.name == "letters" ? recipe_.letter_chats : recipe_.other_chats,
                                   o_.seed, data::Split::kTrain))
          known.push_back(std::move(row));
    const std::string chats = data::to_jsonl(known);
    write_file_atomic(text_ / "chats.jsonl", chats);
    job_.phase("custom", "training a tokenizer");
    write_tokenizer(base_, recipe_.vocabulary, corpus, chats);
    write_file_atomic(base_ / "config.json", model_config(recipe_));
    job_.stop_if_cancelled();
  }

  // what the model shall learn, and what it is asked before and after
  void write_questions() {
    const auto questions = [&](int64_t n, data::Split split) {
      return data::instruction_set(recipe_.task, n, o_.seed, split, recipe_.letters);
    };
    write_file_atomic(text_ / "train.jsonl", data::to_jsonl(questions(recipe_.tuning_rows, data::Split::kTrain)));
    test_ = questions(recipe_.test_questions, data::Split::kTest);
    write_file_atomic(text_ / "test.jsonl", data::to_jsonl(test_));
    job_.stop_if_cancelled();
  }

  // all parameters, from random weights, on the corpus and on chats of the tasks in it
  void pretrain() {
    ModelSession s = open_session(job_, {.model = "random:" + (base_ / "config.json").string(),
                                         .device = o_.device,
                                         .threads = o_.threads,
                                         .for_training = true,
                                         .scale_residual = true,
                                         .seed = o_.seed});
    chat_ = open_text(base_, s.model->info());
    job_.phase("tokenizing_dataset", (text_ / "corpus.txt").string());
    std::vector<data::Example> pages = examples_of(text_ / "corpus.txt", *s.threads);
    for (data::Example& e : examples_of(text_ / "chats.jsonl", *s.threads)) pages.push_back(std::move(e));
    const auto loader = make_loader(std::move(pages));
    const auto target =
        train::make_model_target(*s.model, *s.checkpoint, base_, DType::kBF16, {recipe_.pretrain_lr, {}, {}});
    train::TrainOptions t = train_options(recipe_.pretrain_steps, recipe_.batch_size, recipe_.pretrain_lr, o_.seed);
    t.adamw.weight_decay = 0.1;
    t.adamw.beta2 = 0.95;
    train::Trainer trainer(*s.ctx, *target, *loader, t, observer_);
    job_.log(LogLevel::kInfo, "pretraining a Qwen3-architecture model of {:.2f} M parameters from random weights",
             static_cast<double>(trainer.parameters().count()) / 1e6);
    job_.phase("training", "pretraining");
    run(trainer);
    job_.phase("saving_weights", base_.string());
    const fs::path staging = out_ / ".base";
    fs::remove_all(staging);
    fs::create_directories(staging);
    target->save(staging, {});
    for (const fs::directory_entry& e : fs::directory_iterator(staging))
      fs::rename(e.path(), base_ / e.path().filename());
    fs::remove_all(staging);
    job_.artefact(base_.string(), "model");
  }

  // an adapter for the task that was kept out; accuracy on its unseen questions before and after
  QuickstartResult tune() {
    QuickstartResult result{.model = base_, .adapter = adapter_};
    session_ = open_session(job_, {.model = base_.string(), .device = o_.device, .threads = o_.threads});
    ModelSession& s = session_;
    chat_ = open_text(base_, s.model->info());
    result.before = exact_match();
    job_.log(LogLevel::kInfo, "before fine-tuning: {:.1f} % of {} unseen questions of the task \"{}\" answered exactly",
             100 * result.before, test_.size(), recipe_.task);
    adapters::PeftConfig config;
    config.r = recipe_.lora_r;
    config.alpha = 2 * static_cast<double>(recipe_.lora_r);
    config.targets.all_linear = true;
    config.base_model = base_.string();
    s.adapter = adapters::Adapter::create(*s.ctx, *s.model, config, o_.seed);
    s.adapter->attach(*s.model, 0);
    adapters::prepare_training(*s.ctx, *s.model, *s.adapter, 0);
    const auto loader = make_loader(examples_of(text_ / "train.jsonl", *s.threads));
    const auto target = train::make_adapter_target(*s.model, s.adapter, {recipe_.tuning_lr, {}, {}});
    train::Trainer trainer(*s.ctx, *target, *loader,
                           train_options(recipe_.tuning_steps, recipe_.tuning_batch, recipe_.tuning_lr, o_.seed),
                           observer_);
    job_.phase("training", "fine-tuning");
    run(trainer);
    job_.phase("saving_weights", adapter_.string());
    target->save(adapter_, [&](const std::string& key) -> Tensor {
      for (const auto& item : trainer.parameters().items())
        if (item.key == key) return trainer.parameters().master(item);
      return {};
    });
    models::copy_sidecars(base_, adapter_);
    job_.artefact(adapter_.string(), "adapter");
    result.after = exact_match();
    return result;
  }

  void show(const QuickstartResult& result) {
    const std::string& question = test_[0].question;
    const std::string base = base_.string(), adapter = adapter_.string();
    const std::string pmetal = program(), model = fmt::format("--model {} --lora {}", base, adapter);
    job_.data() << fmt::format("exact match on {} unseen questions: {:.1f} % before, {:.1f} % after fine-tuning\n",
                               test_.size(), 100 * result.before, 100 * result.after)
                << fmt::format("\n> {}\n{}\n", question, answers({question})[0]) << "\nTry next:\n"
                << fmt::format("  {} infer {} --chat --prompt \"{}\"\n", pmetal, model, question)
                << fmt::format("  {} infer {} --interactive\n", pmetal, model)
                << fmt::format("  {} eval {} --dataset {} --metric exact_match\n", pmetal, model,
                               (text_ / "test.jsonl").string())
                << fmt::format("  {} train --model {} --dataset {} --output output\n", pmetal, base,
                               (text_ / "train.jsonl").string());
  }

 private:
  // chats learn their answers alone, text learns every token
  std::vector<data::Example> examples_of(const fs::path& file, ThreadPool& pool) const {
    const auto builder =
        make_example_builder(chat_, {.train_on = data::TrainOn::kAll, .max_length = recipe_.sequence_length});
    return data::read_examples(*data::open_source(file), {}, *builder, &pool);
  }
  std::unique_ptr<data::Loader> make_loader(std::vector<data::Example> examples) const {
    return data::make_loader(std::move(examples), "quickstart",
                             {.seed = o_.seed, .max_length = recipe_.sequence_length, .epochs = 0});
  }
  void run(train::Trainer& trainer) {
    const train::TrainSummary summary = trainer.run();
    job_.stop_if_cancelled();
    job_.summary.final_loss = summary.final_loss;
    job_.summary.total_steps += summary.steps;
    job_.summary.total_tokens += summary.tokens;
  }
  std::vector<std::string> answers(const std::vector<std::string>& questions) {
    std::vector<std::vector<int32_t>> prompts;
    for (const std::string& q : questions) prompts.push_back(chat_.tokenizer->encode_ids(chat_prompt(chat_, q)));
    std::vector<std::string> out;
    for (const auto& ids : infer::generate_greedy(*session_.ctx, *session_.model, prompts, kAnswerTokens, *chat_.eos))
      out.push_back(chat_.tokenizer->decode(ids, true));
    return out;
  }
  double exact_match() {
    std::vector<std::string> questions;
    for (const data::SyntheticRow& row : test_) questions.push_back(row.question);
    const std::vector<std::string> given = answers(questions);
    int64_t right = 0;
    for (size_t i = 0; i < test_.size(); ++i) right += given[i] == test_[i].answer;
    return static_cast<double>(right) / static_cast<double>(test_.size());
  }

  const QuickstartOptions& o_;
  const RecipeSpec& recipe_;
  JobContext& job_;
  const fs::path out_, text_ = out_ / "text", base_ = out_ / "base", adapter_ = out_ / "adapter";
  TrainingObserver observer_;
  TextSession chat_;
  Rows test_;
  ModelSession session_;  // the trained base; with the adapter once it exists
};

}  // namespace

QuickstartResult quickstart(const QuickstartOptions& options, const RecipeSpec& recipe, JobContext& job) {
  Quickstart q(options, recipe, job);
  q.write_text();
  q.write_questions();
  q.pretrain();
  const QuickstartResult result = q.tune();
  q.show(result);
  job.summary.output_path = options.output_dir;
  job.summary.extra = {{"exact_match_before", result.before}, {"exact_match_after", result.after}};
  return result;
}

}  // namespace pmetal::jobs
