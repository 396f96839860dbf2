// Parquet against files of two independent writers (tests/oracle/parquet: hyparquet-writer and DuckDB), our own writer
// read back, and damaged files.
#include "formats/parquet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rng.h"
#include "base/testing.h"
#include "formats/compression.h"

namespace pmetal::formats {
namespace {

using Json = nlohmann::json;

const fs::path kData = testing_support::data_dir() / "parquet";

std::vector<Json> expected(const std::string& name) {
  LineReader lines(open_input(kData / (name + ".jsonl")), name);
  std::vector<Json> rows;
  std::string_view line;
  while (lines.next(line)) rows.push_back(Json::parse(line));
  return rows;
}
std::vector<Json> read(ParquetReader reader) {
  std::vector<Json> rows;
  std::string row;
  while (reader.next(row)) rows.push_back(Json::parse(row));
  return rows;
}

class ParquetFile : public ::testing::TestWithParam<const char*> {};

TEST_P(ParquetFile, Gives_back_the_rows_that_were_written) {
  const std::string file = GetParam();
  const auto want = expected(file.substr(0, file.find('-')));
  const auto got = read(ParquetReader(kData / (file + ".parquet")));
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i]) << "row " << i;
}

INSTANTIATE_TEST_SUITE_P(Oracle, ParquetFile,
                         ::testing::Values("flat-hyparquet", "flat-hyparquet-encoded", "flat-duckdb-uncompressed",
                                           "flat-duckdb-snappy", "flat-duckdb-gzip", "flat-duckdb-zstd",
                                           "flat-duckdb-lz4_raw", "flat-duckdb-v2", "chats-duckdb-snappy",
                                           "chats-duckdb-zstd", "chats-duckdb-v2", "types"));

TEST(Parquet, Skipping_lands_on_the_same_row) {
  const auto want = expected("flat");
  for (int64_t n : {0, 1, 149, 150, 151, 299, 399, 400, 500}) {
    ParquetReader reader(kData / "flat-hyparquet.parquet");
    EXPECT_EQ(reader.skip(n), std::min<int64_t>(n, 400));
    std::string row;
    ASSERT_EQ(reader.next(row), n < 400);
    if (n < 400) {
      EXPECT_EQ(Json::parse(row), want[static_cast<size_t>(n)]);
      EXPECT_EQ(reader.row(), n + 1);
    }
  }
}

class ParquetWriting : public ::testing::Test {
 protected:
  void SetUp() override { folder_ = testing_support::scratch_dir("parquet"); }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::vector<std::string>& rows, int64_t per_group = 3) {
    ParquetWriter writer(folder_ / "x.parquet", per_group);
    for (const auto& r : rows) writer.observe(r);
    for (const auto& r : rows) writer.write(r);
    writer.finish();
  }
  std::vector<Json> read_back() { return read(ParquetReader(folder_ / "x.parquet")); }
  fs::path folder_;
};

TEST_F(ParquetWriting, What_is_written_is_read_back) {
  for (const char* name : {"flat", "chats"}) {
    std::vector<std::string> rows;
    for (const auto& r : expected(name)) rows.push_back(r.dump());
    for (int64_t per_group : {7, 100000}) {
      write(rows, per_group);
      EXPECT_EQ(read_back(), expected(name));
    }
  }
}

TEST_F(ParquetWriting, Absent_fields_become_null_and_numbers_meet_as_floats) {
  write({R"({"a":1,"b":{"c":[]}})", R"({"a":2.5})", R"({"z":true,"b":{"c":[[1],null,[]],"d":"x"}})", R"({"a":null})"});
  EXPECT_EQ(read_back(), (std::vector<Json>{Json::parse(R"({"a":1.0,"b":{"c":[]},"z":null})"),
                                            Json::parse(R"({"a":2.5,"b":null,"z":null})"),
                                            Json::parse(R"({"a":null,"b":{"c":[[1],null,[]],"d":"x"},"z":true})"),
                                            Json::parse(R"({"a":null,"b":null,"z":null})")}));
}

TEST_F(ParquetWriting, A_field_of_two_types_is_named) {
  try {
    write({R"({"m":[{"content":"text"}]})", R"({"m":[{"content":[1]}]})"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("\"m[].content\" is text in one row and a list in another"));
  }
  EXPECT_THROW(write({}), Error);
  EXPECT_FALSE(fs::exists(folder_ / "x.parquet"));
}

TEST(Parquet, Damaged_files_are_errors_and_never_more) {
  int64_t refused = 0;
  for (const char* name : {"flat-hyparquet-encoded", "chats-duckdb-snappy", "chats-duckdb-v2", "types"}) {
    const std::string whole = read_text(kData / (std::string(name) + ".parquet"));
    PhiloxStream random(1, RngPurpose::kSynthetic);
    for (int i = 0; i < 150; ++i) {
      std::string bytes = whole;
      if (i % 3 == 0) {
        bytes.resize(random.below(bytes.size()));
      } else {
        // half of the changes fall into the footer, where sizes and offsets are
        const size_t from = i % 3 == 1 ? bytes.size() - std::min<size_t>(bytes.size(), 1200) : 0;
        for (int k = 0; k < 3; ++k)
          bytes[from + random.below(bytes.size() - from)] ^= static_cast<char>(1 << random.below(8));
      }
      try {
        read(ParquetReader(std::string_view(bytes), "damaged"));
      } catch (const Error&) {
        ++refused;
      } catch (const Json::exception&) {
        FAIL() << "a row that is not JSON";
      }
    }
  }
  EXPECT_GT(refused, 200);  // the 200 cut ones, and most of the flipped
}

}  // namespace
}  // namespace pmetal::formats
