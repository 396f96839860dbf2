// The adapter that Adapter::create and Adapter::load make: one part per module of the model.
#pragma once

#include <map>

#include "adapters/adapter.h"
#include "adapters/embedding_module.h"
#include "adapters/lora_module.h"

namespace pmetal::adapters {

// Everything adapters can sit on; a tied head comes last of the Linears, though it is no tensor of its own.
struct ModuleFinder : models::ParameterVisitor {
  std::vector<nn::Linear*> linears;
  std::vector<nn::Embedding*> embeddings;
  std::vector<nn::Parameter*> parameters;
  explicit ModuleFinder(models::Model& model);
  void on(nn::Linear& l) override { linears.push_back(&l); }
  void on(nn::Embedding& e) override { embeddings.push_back(&e); }
  void on(nn::Parameter& p) override { parameters.push_back(&p); }
};

class PeftAdapter final : public Adapter {
 public:
  struct Parts {
    std::map<std::string, std::shared_ptr<LoraModule>> linears;
    std::map<std::string, std::shared_ptr<EmbeddingModule>> embeddings;
    std::shared_ptr<nn::LinearAdapter> tied_head;  // follows the table's part
  };
  PeftAdapter(PeftConfig config, Parts parts) : config_(std::move(config)), parts_(std::move(parts)) {}

  const PeftConfig& config() const override { return config_; }
  std::vector<AdapterParameter> parameters() override;
  void attach(models::Model& model, int index) override;
  void detach(models::Model& model, int index) override;
  void refresh() override;
  bool changes(const std::string& module) const override;
  bool adds_bias(const std::string& module) const override;
  bool keeps_head_tied(models::Model& model) const override;
  bool wants_columns(const std::string& module) const override;
  void measure(const std::string& module, int64_t rows, int64_t columns, const RowReader& weight,
               ThreadPool& threads) override;
  void merge_rows(const std::string& module, int64_t begin, int64_t n, float* rows, bool accurate) const override;
  void merge_bias(const std::string& module, int64_t n, float* bias) const override;
  void save(const std::filesystem::path& folder,
            const std::function<Tensor(const AdapterParameter&)>& value_of) const override;

 private:
  void merge_table_rows(const EmbeddingModule& m, int64_t begin, int64_t n, float* rows, bool accurate) const;

  PeftConfig config_;
  Parts parts_;
  std::map<std::string, std::vector<float>> columns_;  // norms of merged columns, from measure()
};

inline constexpr std::string_view kPeftPrefix = "base_model.model.";

}  // namespace pmetal::adapters
