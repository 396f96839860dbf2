// Sharded checkpoints: the set written by transformers is read, and written again with the same bytes.
#include "formats/sharded.h"

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/error.h"
#include "base/fault.h"
#include "base/testing.h"

namespace pmetal::formats {
namespace {

fs::path fixture() { return testing_support::data_dir() / "checkpoints" / "qwen3-sharded-bf16"; }

std::string error_of(const fs::path& path) {
  try {
    SafetensorsSet::open(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::span<const std::byte> bytes_of(const TensorView& tensor) {
  return {tensor.bytes.data(), static_cast<size_t>(tensor.bytes.size_bytes())};
}

// a copy of the fixture that a test may damage
class Sharded : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing_support::scratch_dir("sharded");
    for (const auto& entry : fs::directory_iterator(fixture())) {
      std::ofstream(folder_ / entry.path().filename(), std::ios::binary) << read_text(entry.path());
    }
    fs::remove(folder_ / "expected.safetensors");
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write_index(std::string_view text) { write_file_atomic(folder_ / "model.safetensors.index.json", text); }
  fs::path folder_;
};

}  // namespace

TEST_F(Sharded, Folder_index_and_single_file_open) {
  const SafetensorsSet set = SafetensorsSet::open(folder_);
  EXPECT_EQ(set.files().size(), 3u);
  EXPECT_EQ(set.total_bytes(), 314496);  // metadata.total_size of the index
  EXPECT_EQ(set.tensors().size(), 47u);
  EXPECT_EQ(set.at("lm_head.weight").shape, (std::vector<int64_t>{263, 64}));
  EXPECT_EQ(set.find("nothing"), nullptr);
  EXPECT_THROW(set.at("nothing"), Error);
  EXPECT_EQ(SafetensorsSet::open(folder_ / "model.safetensors.index.json").tensors().size(), 47u);
  EXPECT_EQ(SafetensorsSet::open(folder_ / "model-00003-of-00003.safetensors").tensors().size(), 13u);
}

TEST_F(Sharded, Every_checkpoint_of_the_fixtures_opens) {
  if (testing_support::shared_dir().empty()) return;
  for (const char* name : {"fixtures/checkpoints/qwen3-sharded-bf16", "fixtures/checkpoints/qwen3-fp8",
                           "fixtures/checkpoints/gpt_oss-mxfp4", "models/tiny-student", "models/tiny-teacher"}) {
    SCOPED_TRACE(name);
    const SafetensorsSet set = SafetensorsSet::open(testing_support::shared_dir() / name);
    EXPECT_GT(set.total_bytes(), 0);
    for (const TensorView* t : set.tensors()) EXPECT_EQ(set.find(t->name), t);
  }
}

// transformers declares tensors in module order and here cut shards at a limit between 111 808 and 115 328 bytes
TEST_F(Sharded, Written_again_the_shards_and_the_index_have_the_same_bytes) {
  const SafetensorsSet set = SafetensorsSet::open(folder_);
  std::vector<std::string> names = {"model.embed_tokens.weight"};
  for (int layer = 0; layer < 4; ++layer)
    for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "self_attn.q_norm", "self_attn.k_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
                             "input_layernorm", "post_attention_layernorm"})
      names.push_back(fmt::format("model.layers.{}.{}.weight", layer, part));
  names.insert(names.end(), {"model.norm.weight", "lm_head.weight"});
  std::vector<TensorDeclaration> tensors;
  for (const std::string& name : names) tensors.push_back({name, set.at(name).dtype, set.at(name).shape});

  const fs::path out = testing_support::scratch_dir("sharded_out");
  ShardedWriter writer(out, tensors, 112'000);
  EXPECT_EQ(writer.n_shards(), 3);
  for (const TensorDeclaration& t : writer.order()) writer.write(t.name, bytes_of(set.at(t.name)));
  EXPECT_FALSE(fs::exists(out / "model-00001-of-00003.safetensors"));
  writer.finish();
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("model")) continue;
    EXPECT_TRUE(read_text(out / name) == read_text(entry.path())) << name;
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(out), fs::directory_iterator()), 4);
  EXPECT_THROW(ShardedWriter(out, tensors), Error);
  fs::remove_all(out);
}

TEST_F(Sharded, What_fits_one_shard_is_a_single_file_and_a_large_tensor_stands_alone) {
  const fs::path out = testing_support::scratch_dir("sharded_single");
  const std::vector<std::byte> bytes(100);
  {
    ShardedWriter writer(out, {{"b", DType::kU8, {40}}, {"a", DType::kU8, {60}}}, 100);
    ASSERT_EQ(writer.n_shards(), 1);
    EXPECT_EQ(writer.order()[0].name, "a");
    writer.write("a", std::span(bytes).first(60));
    writer.write("b", std::span(bytes).first(40));
    writer.finish();
  }
  EXPECT_EQ(SafetensorsSet::open(out).total_bytes(), 100);
  EXPECT_FALSE(fs::exists(out / "model.safetensors.index.json"));
  fs::remove_all(out);
  fs::create_directories(out);
  EXPECT_EQ(
      ShardedWriter(out, {{"a", DType::kU8, {10}}, {"b", DType::kU8, {90}}, {"c", DType::kU8, {10}}}, 50).n_shards(),
      3);
  EXPECT_TRUE(fs::is_empty(out));  // a writer that is dropped leaves nothing
  fs::remove_all(out);
}

namespace {
void write_three_shards(const fs::path& folder) {
  const std::vector<std::byte> bytes(50);
  ShardedWriter writer(folder, {{"a", DType::kU8, {50}}, {"b", DType::kU8, {50}}, {"c", DType::kU8, {50}}}, 50);
  for (const char* name : {"a", "b", "c"}) writer.write(name, bytes);
  writer.finish();
}
}  // namespace

TEST_F(Sharded, A_full_disk_at_any_moment_is_an_error_and_leaves_no_checkpoint_and_no_litter) {
  const fs::path out = testing_support::scratch_dir("sharded_full_disk");
  for (const char* point : {"write", "sync", "rename"})
    for (int n = 1; n <= 4; ++n) {  // three shards and the index
      SCOPED_TRACE(fmt::format("{}:{}", point, n));
      fs::remove_all(out);
      fs::create_directories(out);
      set_fault(fmt::format("{}:{}", point, n).c_str());
      EXPECT_THROW(write_three_shards(out), Error);
      set_fault(nullptr);
      EXPECT_THROW(SafetensorsSet::open(out), Error);
      for (const auto& entry : fs::directory_iterator(out))
        EXPECT_TRUE(entry.path().string().ends_with(".safetensors")) << entry.path();
    }
  fs::remove_all(out);
}

TEST_F(Sharded, A_kill_while_a_checkpoint_is_replaced_leaves_the_old_one_or_the_new_one) {
  const fs::path parent = testing_support::scratch_dir("sharded_kill");
  for (const char* fault : {"write:2:kill", "rename:1:kill", "rename:3:kill", "rename:4:kill", "rename:5:kill"}) {
    SCOPED_TRACE(fault);
    fs::remove_all(parent);
    fs::create_directories(parent / "model");
    fs::copy(folder_ / "model-00003-of-00003.safetensors", parent / "model" / "model.safetensors");
    const pid_t child = ::fork();
    if (child == 0) {
      set_fault(fault);
      AtomicDirectory folder(parent / "model");
      write_three_shards(folder.temporary());
      folder.commit();
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    const size_t n_tensors = SafetensorsSet::open(parent / "model").tensors().size();
    EXPECT_TRUE(n_tensors == 13 || n_tensors == 3) << n_tensors;
  }
  fs::remove_all(parent);
}

TEST_F(Sharded, Missing_shards_are_named) {
  fs::remove(folder_ / "model-00002-of-00003.safetensors");
  EXPECT_EQ(error_of(folder_),
            (folder_ / "model.safetensors.index.json").string() +
                ": 1 of 3 shards are missing: \"model-00002-of-00003.safetensors\"; download them again");
}

TEST_F(Sharded, An_index_that_lies_is_refused) {
  const std::string index = (folder_ / "model.safetensors.index.json").string();
  write_index(R"({"weight_map": {"no.such": "model-00001-of-00003.safetensors"}})");
  EXPECT_EQ(error_of(folder_), (folder_ / "model-00001-of-00003.safetensors").string() +
                                   ": lacks 1 of the 1 tensors that " + index +
                                   " places there: \"no.such\"; download both again");
  for (const char* escape : {"../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "", "passwd"}) {
    write_index(fmt::format(R"({{"weight_map": {{"a": "{}"}}}})", escape));
    EXPECT_EQ(error_of(folder_), fmt::format("{}: weight_map names the file \"{}\"; a .safetensors file in the same "
                                             "folder is needed",
                                             index, escape));
  }
  write_index(R"({"weight_map": {"a": 7}})");
  EXPECT_EQ(error_of(folder_), index +
                                   ": field \"weight_map.a\": expected the name of a shard, got a value that is not "
                                   "a string");
  write_index(R"({"metadata": {}})");
  EXPECT_EQ(error_of(folder_), index + ": field \"weight_map\": expected an object, the field is missing");
  write_index(R"({"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}})");
  EXPECT_NE(error_of(folder_), "no error");
}

TEST_F(Sharded, A_folder_without_checkpoint_says_what_is_needed) {
  const fs::path empty = folder_ / "empty";
  fs::create_directories(empty);
  EXPECT_EQ(error_of(empty), empty.string() +
                                 ": has neither model.safetensors nor model.safetensors.index.json; name a "
                                 "folder with a safetensors checkpoint");
  EXPECT_EQ(error_of(folder_ / "absent"), (folder_ / "absent").string() + ": no such file or folder; check the path");
}

TEST_F(Sharded, The_same_tensor_in_two_shards_is_refused) {
  fs::copy(folder_ / "model-00001-of-00003.safetensors", folder_ / "copy.safetensors");
  write_index(R"({"weight_map": {"model.embed_tokens.weight": "model-00001-of-00003.safetensors",
                                 "model.layers.0.input_layernorm.weight": "copy.safetensors"}})");
  EXPECT_EQ(error_of(folder_), (folder_ / "model.safetensors.index.json").string() +
                                   ": tensor \"model.embed_tokens.weight\" is in two shards; remove one of them");
}

}  // namespace pmetal::formats
