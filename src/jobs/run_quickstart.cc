// pmetal quickstart: from nothing to a fine-tuned language model that answers, with no network and no file of anyone's:
// text of our own making, a tokenizer, a small model trained from random weights, a LoRA adapter for a task the
// model has never seen, exact-match accuracy before and after.
#include <ostream>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "data/loader.h"
#include "data/synthetic.h"
#include "infer/generate.h"
#include "jobs/model_session.h"
#include "jobs/recipes.h"
#include "jobs/spec.h"
#include "jobs/text_session.h"
#include "jobs/training.h"
#include "text/tokenizer/bpe_trainer.h"

namespace pmetal::jobs {
namespace {

constexpr std::string_view kTask = "reverse-letters";
constexpr std::string_view kChatMl =
    "{%- for message in messages -%}\n<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}\n"
    "{%- if add_generation_prompt -%}\n<|im_start|>assistant\n{% endif -%}\n";
constexpr int64_t kTestQuestions = 200;
constexpr int64_t kAnswerTokens = 24;

void write_tokenizer(const fs::path& folder, const RecipeSpec& recipe, std::string_view corpus,
                     const std::string& chats) {
  text::BpeTrainer trainer({.vocab_size = static_cast<int32_t>(recipe.vocabulary),
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

std::vector<data::Example> examples_of(const fs::path& file, const TextSession& text, data::TrainOn train_on,
                                       int64_t max_length, ThreadPool& pool) {
  const auto builder = make_example_builder(text, {.train_on = train_on, .max_length = max_length});
  return data::read_examples(*data::open_source(file), {}, *builder, &pool);
}

// share of questions answered exactly
double exact_match(ModelSession& s, const TextSession& text, const std::vector<data::SyntheticRow>& rows) {
  std::vector<std::vector<int32_t>> prompts;
  for (const data::SyntheticRow& row : rows)
    prompts.push_back(text.tokenizer->encode_ids(chat_prompt(text, row.question)));
  const auto answers = infer::generate_greedy(*s.ctx, *s.model, prompts, kAnswerTokens, *text.eos);
  int64_t right = 0;
  for (size_t i = 0; i < rows.size(); ++i) right += text.tokenizer->decode(answers[i], true) == rows[i].answer;
  return static_cast<double>(right) / static_cast<double>(rows.size());
}

std::string answer(ModelSession& s, const TextSession& text, const std::string& question) {
  const std::vector<int32_t> prompt[] = {text.tokenizer->encode_ids(chat_prompt(text, question))};
  return text.tokenizer->decode(infer::generate_greedy(*s.ctx, *s.model, prompt, kAnswerTokens, *text.eos)[0], true);
}

train::TrainOptions train_options(int64_t steps, double lr, uint64_t seed, double decay) {
  train::TrainOptions t;
  t.accumulation = 1;
  t.max_steps = t.total_steps = steps;
  t.adamw.weight_decay = decay;
  t.schedule.base = lr;
  t.schedule.total = steps;
  t.schedule.warmup = steps / 20;
  t.schedule.min_ratio = 0.1;
  t.seed = seed;
  return t;
}

}  // namespace

void run_quickstart(const JobOptions& options, JobContext& job) {
  const QuickstartOptions& o = options.as<QuickstartOptions>();
  const fs::path out = o.output_dir, text_folder = out / "text", base = out / "base", adapter_folder = out / "adapter";
  fs::create_directories(text_folder);
  fs::create_directories(base);
  fs::create_directories(adapter_folder);

  // 1. which recipe
  const auto threads = std::make_shared<ThreadPool>(static_cast<int>(o.threads));
  Context probe(threads);
  const double gflops = o.recipe == Recipe::kAuto ? measure_gflops(probe, 1.0) : 0;
  const RecipeSpec& recipe = o.recipe == Recipe::kAuto ? recipe_for_speed(gflops) : recipe_of(o.recipe);
  if (o.recipe == Recipe::kAuto)
    job.log(LogLevel::kInfo, "speed test: {:.0f} GFLOP/s in bf16; recipe \"{}\"", gflops, recipe.name);

  // 2. text, and questions of a task that the text never shows
  job.phase("custom", "writing text");
  const std::string corpus = data::corpus(o.seed, recipe.corpus_bytes);
  write_file_atomic(text_folder / "corpus.txt", corpus);
  std::vector<data::SyntheticRow> known;
  for (const data::SyntheticTask& task : data::synthetic_tasks())
    if (task.is_in_corpus)
      for (data::SyntheticRow& row :
           data::instruction_set(task.name, recipe.corpus_bytes / 4000, o.seed, data::Split::kTrain))
        known.push_back(std::move(row));
  write_file_atomic(text_folder / "chats.jsonl", data::to_jsonl(known));
  const auto tuning = data::instruction_set(kTask, recipe.tuning_rows, o.seed, data::Split::kTrain);
  const auto test = data::instruction_set(kTask, kTestQuestions, o.seed, data::Split::kTest);
  write_file_atomic(text_folder / "train.jsonl", data::to_jsonl(tuning));
  write_file_atomic(text_folder / "test.jsonl", data::to_jsonl(test));

  // 3. tokenizer and model
  job.phase("custom", "training a tokenizer");
  write_tokenizer(base, recipe, corpus, data::to_jsonl(known));
  write_file_atomic(base / "config.json", model_config(recipe));
  ModelSession s = open_session(job, {.model = "random:" + (base / "config.json").string(),
                                      .device = o.device,
                                      .threads = o.threads,
                                      .for_training = true,
                                      .scale_residual = true,
                                      .seed = o.seed});
  const TextSession text = open_text(base, s.model->info());

  // 4. pretraining
  job.phase("tokenizing_dataset", (text_folder / "corpus.txt").string());
  std::vector<data::Example> pages =
      examples_of(text_folder / "corpus.txt", text, data::TrainOn::kEverything, recipe.sequence_length, *s.threads);
  for (data::Example& e :
       examples_of(text_folder / "chats.jsonl", text, data::TrainOn::kEverything, recipe.sequence_length, *s.threads))
    pages.push_back(std::move(e));
  TrainingObserver observer(job, nullptr, 1);
  {
    const auto loader = data::make_loader(std::move(pages), "quickstart",
                                          {.seed = o.seed, .max_length = recipe.sequence_length, .epochs = 0});
    const auto target = make_model_target(*s.model, *s.checkpoint, base, DType::kBF16, {recipe.pretrain_lr, {}, {}});
    train::TrainOptions t = train_options(recipe.pretrain_steps, recipe.pretrain_lr, o.seed, 0.1);
    t.batch_size = recipe.batch_size;
    t.adamw.beta2 = 0.95;
    train::Trainer trainer(*s.ctx, *target, *loader, t, observer);
    job.log(LogLevel::kInfo, "pretraining a Qwen3-architecture model of {:.2f} M parameters from random weights",
            static_cast<double>(trainer.parameters().count()) / 1e6);
    job.phase("training", "pretraining");
    trainer.run();
    job.stop_if_cancelled();
    job.phase("saving_weights", base.string());
    const fs::path staging = out / ".base";
    fs::remove_all(staging);
    fs::create_directories(staging);
    target->save(staging, {});
    for (const fs::directory_entry& e : fs::directory_iterator(staging))
      fs::rename(e.path(), base / e.path().filename());
    fs::remove_all(staging);
    job.artefact(base.string(), "model");
  }

  // 5. an adapter for the task that was kept out
  s = open_session(job, {.model = base.string(), .device = o.device, .threads = o.threads});
  const double before = exact_match(s, text, test);
  job.log(LogLevel::kInfo, "before fine-tuning: {:.1f} % of {} unseen questions of the task \"{}\" answered exactly",
          100 * before, test.size(), kTask);
  adapters::PeftConfig config;
  config.r = recipe.lora_r;
  config.alpha = 2 * static_cast<double>(recipe.lora_r);
  config.targets.all_linear = true;
  config.base_model = base.string();
  s.adapter = adapters::Adapter::create(*s.ctx, *s.model, config, o.seed);
  s.adapter->attach(*s.model, 0);
  {
    std::vector<data::Example> rows =
        examples_of(text_folder / "train.jsonl", text, data::TrainOn::kAll, recipe.sequence_length, *s.threads);
    const auto loader = data::make_loader(std::move(rows), "quickstart",
                                          {.seed = o.seed, .max_length = recipe.sequence_length, .epochs = 0});
    const auto target = make_adapter_target(*s.model, s.adapter, {recipe.tuning_lr, {}, {}});
    train::TrainOptions t = train_options(recipe.tuning_steps, recipe.tuning_lr, o.seed, 0.0);
    t.batch_size = recipe.tuning_batch;
    train::Trainer trainer(*s.ctx, *target, *loader, t, observer);
    job.phase("training", "fine-tuning");
    job.summary.final_loss = trainer.run().final_loss;
    job.stop_if_cancelled();
    job.phase("saving_weights", adapter_folder.string());
    target->save(adapter_folder, [&](const std::string& key) -> Tensor {
      for (const auto& item : trainer.parameters().items())
        if (item.key == key) return trainer.parameters().master(item);
      return {};
    });
    models::copy_sidecars(base, adapter_folder);
    job.artefact(adapter_folder.string(), "adapter");
  }
  const double after = exact_match(s, text, test);

  // 6. what there is now
  const std::string question = test[0].question;
  job.data() << fmt::format("exact match on {} unseen questions: {:.1f} % before, {:.1f} % after fine-tuning\n",
                            test.size(), 100 * before, 100 * after)
             << fmt::format("\n> {}\n{}\n", question, answer(s, text, question))
             << fmt::format(
                    "\nTry next:\n  pmetal infer --model {0} --lora {1} --chat --prompt \"{2}\"\n  pmetal infer "
                    "--model {0} --lora {1} --interactive\n"
                    "  pmetal train --model {0} --dataset {3} --output ./output\n  pmetal eval --model {0} --lora {1} "
                    "--dataset {4} --metric exact-match\n",
                    base.string(), adapter_folder.string(), question, (text_folder / "train.jsonl").string(),
                    (text_folder / "test.jsonl").string());
  job.summary.total_steps = recipe.pretrain_steps + recipe.tuning_steps;
  job.summary.output_path = o.output_dir;
  job.summary.extra = {{"exact_match_before", before}, {"exact_match_after", after}};
}

}  // namespace pmetal::jobs
