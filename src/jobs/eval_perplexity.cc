#include <algorithm>

#include "data/loader.h"
#include "jobs/eval_methods.h"

namespace pmetal::jobs {
namespace {

data::ColumnFlags column_flags(const EvalOptions& o) {
  return {o.text_column.value_or(""), o.text_columns, o.column_separator, o.prompt_column.value_or(""),
          o.response_column.value_or("")};
}

// the stream of tokens, and how many documents it holds
std::vector<int32_t> read_documents(const EvalOptions& o, data::Source& source, const TextSession& text,
                                    ThreadPool& threads, int64_t& documents) {
  if (!text.eos)
    fail(ErrorCode::kInvalidInput, "{}: the model names no end token, which must follow each document", o.model);
  constexpr int64_t kRowsAtATime = 1024;
  std::vector<int32_t> stream;
  for (bool more = true; more;) {
    std::vector<data::Row> rows;
    data::Row row;
    while (static_cast<int64_t>(rows.size()) < kRowsAtATime && (o.num_samples == 0 || documents < o.num_samples) &&
           (more = source.next(row))) {
      rows.push_back(std::move(row));
      ++documents;
    }
    more &= o.num_samples == 0 || documents < o.num_samples;
    std::vector<std::vector<int32_t>> ids(rows.size());
    threads.parallel_for(static_cast<int64_t>(rows.size()), 4, [&](int64_t begin, int64_t end) {
      data::RecordParser parser(column_flags(o));
      for (int64_t i = begin; i < end; ++i) {
        const data::Record record = parser.parse(rows[static_cast<size_t>(i)]);
        if (record.format != data::RecordFormat::kText)
          fail(ErrorCode::kInvalidInput, "{}: expected a text as in the first row, found {}", record.where,
               name_of(record.format));
        ids[static_cast<size_t>(i)] = text.tokenizer->encode_ids(record.text);
      }
    });
    for (const std::vector<int32_t>& document : ids) {
      stream.insert(stream.end(), document.begin(), document.end());
      stream.push_back(*text.eos);
    }
  }
  return stream;
}

bool holds_text(const EvalOptions& o, const std::vector<fs::path>& files) {
  const auto source = data::open_files(files, o.document_separator);
  data::Row row;
  if (!source->next(row)) fail(ErrorCode::kInvalidInput, "{}: holds no data", o.dataset);
  return data::RecordParser(column_flags(o)).parse(row).format == data::RecordFormat::kText;
}

}  // namespace

PerplexityResult eval_perplexity(const EvalOptions& o, const JobContext& job, ModelSession& s,
                                 const TextSession& text) {
  const std::vector<fs::path> files = data::resolve_files(o.dataset, "validation");
  const bool is_text = holds_text(o, files);
  const auto source = data::open_files(files, o.document_separator);
  PerplexityResult result;
  job.phase("tokenizing_dataset", o.dataset);
  std::vector<data::Example> examples;
  std::vector<int32_t> stream;
  std::vector<infer::TextWindow> windows;
  if (is_text) {
    if (o.completion_only)
      fail(ErrorCode::kUsage, "--completion-only: {} holds plain text; there are no answers in it", o.dataset);
    stream = read_documents(o, *source, text, *s.threads, result.samples);
    result.text_tokens = static_cast<int64_t>(stream.size());
    result.window = o.max_seq_len;
    windows = infer::text_windows(result.text_tokens, o.max_seq_len, o.stride.value_or(0));
    result.windows = static_cast<int64_t>(windows.size());
    if (windows.empty())
      fail(ErrorCode::kInvalidInput, "{}: {} tokens do not fill one window of {}; lower --max-seq-len", o.dataset,
           result.text_tokens, o.max_seq_len);
  } else {
    if (o.stride) fail(ErrorCode::kUsage, "--stride: {} holds examples, not plain text", o.dataset);
    const auto builder =
        make_example_builder(text, {.train_on = o.completion_only ? data::TrainOn::kAll : data::TrainOn::kEverything,
                                    .max_length = o.max_seq_len});
    examples = data::read_examples(*source, column_flags(o), *builder, s.threads.get(), o.num_samples);
    result.cut = builder->counts().truncated;
    std::erase_if(examples, [](const data::Example& e) { return e.n_learned() == 0; });
    result.samples = static_cast<int64_t>(examples.size());
    if (examples.empty()) fail(ErrorCode::kInvalidInput, "{}: no token is scored", o.dataset);
    if (result.cut > 0)
      job.log(LogLevel::kWarn, "{} of {} examples were longer than {} tokens and were cut; raise --max-seq-len",
              result.cut, result.samples, o.max_seq_len);
  }

  const int64_t n = is_text ? result.windows : result.samples;
  for (int64_t at = 0; at < n; at += o.batch_size) {
    job.stop_if_cancelled();
    const int64_t end = std::min(n, at + o.batch_size);
    std::vector<infer::ScoredSequence> batch;
    std::vector<std::vector<int32_t>> labels;  // of windows, where the first ones are not scored
    labels.reserve(static_cast<size_t>(end - at));
    for (int64_t i = at; i < end; ++i) {
      if (!is_text) {
        const data::Example& e = examples[static_cast<size_t>(i)];
        batch.push_back({e.ids, e.labels});
        continue;
      }
      const infer::TextWindow& w = windows[static_cast<size_t>(i)];
      const auto tokens = std::span(stream).subspan(static_cast<size_t>(w.begin), static_cast<size_t>(w.length));
      labels.emplace_back(tokens.begin(), tokens.end());
      std::fill_n(labels.back().begin(), w.first_scored, data::kIgnore);
      batch.push_back({tokens, labels.back()});
    }
    result.likelihood.add(infer::score(*s.ctx, *s.model, batch));
    job.progress("evaluating", end, n);
  }
  return result;
}

}  // namespace pmetal::jobs
