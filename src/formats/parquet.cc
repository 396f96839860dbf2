#include "formats/parquet.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/dtype.h"
#include "base/error.h"
#include "formats/block_codec.h"
#include "formats/parquet_schema.h"
#include "formats/text.h"

namespace pmetal::formats {
namespace {

BlockCodec codec_of(int codec, const std::string& what) {
  switch (codec) {
    case 0: return BlockCodec::kNone;
    case 1: return BlockCodec::kSnappy;
    case 2: return BlockCodec::kGzip;
    case 6: return BlockCodec::kZstd;
    case 7: return BlockCodec::kLz4Raw;
    default:
      fail(ErrorCode::kUnsupported, "{}: compressed with {}; write it with snappy, zstd, gzip or lz4_raw", what,
           codec == 3   ? "lzo"
           : codec == 4 ? "brotli"
           : codec == 5 ? "the retired lz4"
                        : "an unknown codec");
  }
}

struct PageHeader {
  int64_t type = -1, size = -1, packed_size = -1, n_values = 0, encoding = 0, definition_encoding = 3,
          repetition_encoding = 3;
  int64_t definition_bytes = 0, repetition_bytes = 0;
  bool is_compressed = true;
};

PageHeader read_page_header(ThriftReader& in) {
  PageHeader h;
  in.read_struct([&](ThriftReader::Field f) {
    if (f.id == 1) {
      h.type = in.integer(f);
    } else if (f.id == 2) {
      h.size = in.integer(f);
    } else if (f.id == 3) {
      h.packed_size = in.integer(f);
    } else if ((f.id == 5 || f.id == 7 || f.id == 8) && f.type == ThriftType::kStruct) {
      const bool is_v2 = f.id == 8;
      in.read_struct([&](ThriftReader::Field g) {
        if (g.id == 1)
          h.n_values = in.integer(g);
        else if (g.id == (is_v2 ? 4 : 2))
          h.encoding = in.integer(g);
        else if (!is_v2 && g.id == 3)
          h.definition_encoding = in.integer(g);
        else if (!is_v2 && g.id == 4)
          h.repetition_encoding = in.integer(g);
        else if (is_v2 && g.id == 5)
          h.definition_bytes = in.integer(g);
        else if (is_v2 && g.id == 6)
          h.repetition_bytes = in.integer(g);
        else if (is_v2 && g.id == 7)
          h.is_compressed = in.boolean(g);
        else
          in.skip(g);
      });
    } else {
      in.skip(f);
    }
  });
  return h;
}

// Walks one column of one row group, entry by entry: (repetition level, definition level, value when defined).
class Column {
 public:
  Column(std::string_view file, const ParquetNode& node, const ParquetChunk& chunk, std::string what)
      : node_(&node),
        what_(std::move(what)),
        codec_(codec_of(chunk.codec, what_)),
        left_(chunk.n_values),
        pages_(file.substr(static_cast<size_t>(chunk.offset), static_cast<size_t>(chunk.size_bytes))) {}

  // false when the chunk has no further entry
  bool has_entry() {
    while (at_ == count_) {
      if (left_ <= 0) return false;
      load_page();
    }
    return true;
  }
  int definition() {
    require();
    return definitions_.empty() ? node_->max_definition : static_cast<int>(definitions_[at_]);
  }
  // level of the entry to come; 0 after the last
  int repetition() { return !has_entry() || repetitions_.empty() ? 0 : static_cast<int>(repetitions_[at_]); }
  void advance() {
    const bool is_defined = definition() == node_->max_definition;
    ++at_;
    if (is_defined) ++value_;
  }
  void write_value(std::string& out);
  const ParquetNode& node() const { return *node_; }

 private:
  void require() {
    if (!has_entry()) fail(ErrorCode::kInvalidInput, "{}: the column ends before its rows do", what_);
  }
  [[noreturn]] void bad(std::string_view why) const {
    fail(ErrorCode::kInvalidInput, "{}: damaged page: {}", what_, why);
  }
  std::vector<uint32_t> read_levels(std::string_view& in, int max_level, int64_t encoding, int64_t count);
  void load_page();
  void write_bytes(std::string& out, std::string_view bytes) const;

  const ParquetNode* node_;
  std::string what_;
  BlockCodec codec_;
  int64_t left_;
  std::string_view pages_;
  std::string page_, dictionary_page_;
  ParquetValues values_, dictionary_;
  bool has_dictionary_ = false, uses_dictionary_ = false;
  std::vector<uint32_t> repetitions_, definitions_, indices_;
  size_t at_ = 0, count_ = 0, value_ = 0;
};

std::vector<uint32_t> Column::read_levels(std::string_view& in, int max_level, int64_t encoding, int64_t count) {
  if (max_level == 0) return {};
  const int width = std::bit_width(static_cast<unsigned>(max_level));
  std::vector<uint32_t> levels;
  if (encoding == 4) {
    levels = decode_bit_packed(in, width, count, what_);
  } else {
    if (in.size() < 4) bad("its levels end early");
    uint32_t size;
    std::memcpy(&size, in.data(), 4);
    in.remove_prefix(4);
    if (size > in.size()) bad("its levels are longer than the page");
    std::string_view part = in.substr(0, size);
    levels = decode_rle(part, width, count, what_);
    in.remove_prefix(size);
  }
  return levels;
}

void Column::load_page() {
  ThriftReader reader(pages_, what_);
  const PageHeader h = read_page_header(reader);
  pages_.remove_prefix(reader.position());
  if (h.size < 0 || h.size > kMaxPageBytes || h.packed_size < 0 || static_cast<uint64_t>(h.packed_size) > pages_.size())
    bad(fmt::format("sizes {} and {} with {} bytes left", h.size, h.packed_size, pages_.size()));
  const std::string_view packed = pages_.substr(0, static_cast<size_t>(h.packed_size));
  pages_.remove_prefix(packed.size());
  if (h.type == 1) return;  // index pages are not needed
  if (h.n_values < 0 || h.n_values > kMaxPageValues)
    bad(fmt::format("{} values; at most {} are accepted", h.n_values, kMaxPageValues));
  if (h.type == 2) {
    dictionary_page_ = decompress_block(codec_, packed, static_cast<size_t>(h.size), what_);
    dictionary_ =
        decode_values(ParquetEncoding::kPlain, node_->type, node_->fixed_size, dictionary_page_, h.n_values, what_);
    has_dictionary_ = true;
    return;
  }
  if (h.type != 0 && h.type != 3) bad("unknown kind");
  const int64_t count = h.n_values;
  if (count > left_) bad("more values than the column has");
  std::string_view in;
  if (h.type == 0) {
    page_ = decompress_block(codec_, packed, static_cast<size_t>(h.size), what_);
    in = page_;
    repetitions_ = read_levels(in, node_->max_repetition, h.repetition_encoding, count);
    definitions_ = read_levels(in, node_->max_definition, h.definition_encoding, count);
  } else {
    if (h.repetition_bytes < 0 || h.definition_bytes < 0 || h.repetition_bytes > h.packed_size ||
        h.definition_bytes > h.packed_size - h.repetition_bytes || h.repetition_bytes + h.definition_bytes > h.size)
      bad("its levels are longer than the page");
    const auto levels_size = static_cast<size_t>(h.repetition_bytes + h.definition_bytes);
    std::string_view r = packed.substr(0, static_cast<size_t>(h.repetition_bytes));
    std::string_view d = packed.substr(r.size(), static_cast<size_t>(h.definition_bytes));
    const auto levels = [&](std::string_view part, int max_level) {
      return max_level == 0 ? std::vector<uint32_t>{}
                            : decode_rle(part, std::bit_width(static_cast<unsigned>(max_level)), count, what_);
    };
    repetitions_ = levels(r, node_->max_repetition);
    definitions_ = levels(d, node_->max_definition);
    // an all-null page may have no body at all, which no codec can unpack
    const size_t body = static_cast<size_t>(h.size) - levels_size;
    page_ = body == 0 ? std::string()
                      : decompress_block(h.is_compressed ? codec_ : BlockCodec::kNone, packed.substr(levels_size), body,
                                         what_);
    in = page_;
  }
  int64_t defined = count;
  if (!definitions_.empty()) {
    for (uint32_t d : definitions_)
      if (d > static_cast<uint32_t>(node_->max_definition)) bad("a level above the highest");
    defined = std::count(definitions_.begin(), definitions_.end(), static_cast<uint32_t>(node_->max_definition));
  }
  const auto encoding = static_cast<ParquetEncoding>(h.encoding);
  uses_dictionary_ = h.encoding == 2 || h.encoding == 8;
  if (uses_dictionary_) {
    if (!has_dictionary_) bad("it needs a dictionary and there is none");
    indices_.clear();
    if (defined > 0) {
      if (in.empty()) bad("it ends early");
      const int width = static_cast<uint8_t>(in.front());
      in.remove_prefix(1);
      indices_ = decode_rle(in, width, defined, what_);
      for (uint32_t i : indices_)
        if (i >= dictionary_.size()) bad("an index beyond the dictionary");
    }
  } else {
    if (h.encoding < 0 || h.encoding > 9) bad("unknown encoding");
    values_ = decode_values(encoding, node_->type, node_->fixed_size, in, defined, what_);
  }
  left_ -= count;
  at_ = value_ = 0;
  count_ = static_cast<size_t>(count);
}

std::string base64(std::string_view in) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < in.size(); i += 3) {
    uint32_t v = 0;
    for (size_t k = 0; k < 3; ++k) v = v << 8 | (i + k < in.size() ? static_cast<uint8_t>(in[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += i + k > in.size() ? '=' : kDigits[v >> (18 - 6 * k) & 63];
  }
  return out;
}

std::string iso_date(int64_t days) {
  using namespace std::chrono;
  if (std::abs(days) > 3'000'000) return fmt::format("{} days since 1970", days);  // beyond the calendar's years
  const year_month_day date{sys_days{std::chrono::days{days}}};
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()));
}

// value in units of 1/per_second s
std::string iso_timestamp(int64_t value, int64_t per_second) {
  int64_t seconds = value / per_second, fraction = value % per_second;
  if (fraction < 0) {
    fraction += per_second;
    --seconds;
  }
  int64_t days = seconds / 86400, rest = seconds % 86400;
  if (rest < 0) {
    rest += 86400;
    --days;
  }
  std::string out = fmt::format("{}T{:02}:{:02}:{:02}", iso_date(days), rest / 3600, rest / 60 % 60, rest % 60);
  if (fraction != 0) out += fmt::format(".{:0{}}", fraction, per_second == 1000 ? 3 : per_second == 1'000'000 ? 6 : 9);
  return out;
}

std::string decimal(std::string digits, int scale) {
  const bool is_negative = digits.front() == '-';
  if (is_negative) digits.erase(0, 1);
  if (scale > 0) {
    if (digits.size() <= static_cast<size_t>(scale))
      digits.insert(0, static_cast<size_t>(scale) + 1 - digits.size(), '0');
    digits.insert(digits.size() - static_cast<size_t>(scale), 1, '.');
  }
  return is_negative ? "-" + digits : digits;
}

// big-endian two's complement of at most 16 bytes
std::string decimal_of_bytes(std::string_view bytes, int scale) {
  __extension__ using Wide = __int128;
  Wide value = !bytes.empty() && (bytes[0] & 0x80) ? -1 : 0;
  for (char c : bytes) value = static_cast<Wide>(static_cast<unsigned __int128>(value) << 8 | static_cast<uint8_t>(c));
  const bool is_negative = value < 0;
  auto rest = is_negative ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  std::string digits;
  do digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(rest % 10)));
  while ((rest /= 10) != 0);
  return decimal(is_negative ? "-" + digits : digits, scale);
}

void write_number(std::string& out, double value, bool is_float) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  const std::string text = is_float ? fmt::format("{}", static_cast<float>(value)) : fmt::format("{}", value);
  out += text;
  if (text.find_first_of(".e") == std::string::npos) out += ".0";  // a float stays one
}

void Column::write_bytes(std::string& out, std::string_view bytes) const {
  switch (node_->meaning) {
    case ParquetMeaning::kDecimal:
      if (bytes.size() > 16) bad("a decimal longer than 16 bytes");
      out += decimal_of_bytes(bytes, node_->scale);
      return;
    case ParquetMeaning::kUuid:
      if (bytes.size() == 16) {
        out += '"';
        for (size_t i = 0; i < 16; ++i)
          out +=
              fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", static_cast<uint8_t>(bytes[i]));
        out += '"';
        return;
      }
      break;
    case ParquetMeaning::kFloat16:
      if (bytes.size() == 2) {
        uint16_t bits;
        std::memcpy(&bits, bytes.data(), 2);
        return write_number(out, to_f32(F16{bits}), true);
      }
      break;
    case ParquetMeaning::kJson:
      if (nlohmann::json::accept(bytes)) {
        for (char c : bytes) out += c == '\n' || c == '\r' ? ' ' : c;  // a row stays one line
        return;
      }
      break;
    case ParquetMeaning::kText: append_json_string(out, bytes, is_valid_utf8(bytes) ? std::string() : what_); return;
    default: break;
  }
  if (node_->type == ParquetType::kInt96) {  // nanoseconds of the day, Julian day
    int64_t nanos;
    int32_t day;
    std::memcpy(&nanos, bytes.data(), 8);
    std::memcpy(&day, bytes.data() + 8, 4);
    if (std::abs(nanos) > int64_t{86400} * 1'000'000'000) bad("an impossible time of day");
    out += '"' + iso_timestamp((static_cast<int64_t>(day) - 2440588) * 86'400'000'000 + nanos / 1000, 1'000'000) + '"';
    return;
  }
  if (is_valid_utf8(bytes))
    append_json_string(out, bytes, what_);
  else
    out += '"' + base64(bytes) + '"';
}

void Column::write_value(std::string& out) {
  const size_t i = uses_dictionary_ ? indices_.at(value_) : value_;
  const ParquetValues& v = uses_dictionary_ ? dictionary_ : values_;
  switch (node_->type) {
    case ParquetType::kFloat: return write_number(out, v.numbers.at(i), true);
    case ParquetType::kDouble: return write_number(out, v.numbers.at(i), false);
    case ParquetType::kBytes:
    case ParquetType::kFixed:
    case ParquetType::kInt96: return write_bytes(out, v.bytes.at(i));
    default: break;
  }
  const int64_t x = v.integers.at(i);
  if (node_->type == ParquetType::kBool) {
    out += x ? "true" : "false";
    return;
  }
  switch (node_->meaning) {
    case ParquetMeaning::kDate: out += '"' + iso_date(x) + '"'; break;
    case ParquetMeaning::kTimestampMillis: out += '"' + iso_timestamp(x, 1000) + '"'; break;
    case ParquetMeaning::kTimestampMicros: out += '"' + iso_timestamp(x, 1'000'000) + '"'; break;
    case ParquetMeaning::kTimestampNanos: out += '"' + iso_timestamp(x, 1'000'000'000) + '"'; break;
    case ParquetMeaning::kDecimal: out += decimal(std::to_string(x), node_->scale); break;
    case ParquetMeaning::kUnsigned:
      out += node_->type == ParquetType::kInt32 ? std::to_string(static_cast<uint32_t>(x))
                                                : std::to_string(static_cast<uint64_t>(x));
      break;
    default: out += std::to_string(x);
  }
}

}  // namespace

struct ParquetReader::Impl {
  Buffer map;
  std::string_view file;
  std::string name;
  std::unique_ptr<ParquetFooter> footer;
  std::vector<Column> columns;
  size_t group = 0;  // the one after the current
  int64_t rows_left = 0, row = 0;

  void open_group() {
    const auto& g = footer->groups[group++];
    columns.clear();
    for (size_t i = 0; i < g.chunks.size(); ++i)
      columns.emplace_back(file, *footer->leaves[i], g.chunks[i],
                           fmt::format("{}: column \"{}\"", name, footer->leaves[i]->name));
    rows_left = g.n_rows;
  }
  Column& first_of(const ParquetNode& node) { return columns[static_cast<size_t>(node.leaf)]; }
  void advance_all(const ParquetNode& node) {
    for (int i = 0; i < node.leaf_count; ++i) columns[static_cast<size_t>(node.leaf + i)].advance();
  }
  // the value of a node whose own repetition, if any, is handled by the caller
  void emit(const ParquetNode& node, std::string& out) {
    if (node.is_leaf()) {
      Column& column = first_of(node);
      if (column.definition() < node.max_definition)
        out += "null";
      else
        column.write_value(out);
      column.advance();
      return;
    }
    if (first_of(node).definition() < node.max_definition) {
      advance_all(node);
      out += "null";
      return;
    }
    const bool has_one_repeated =
        node.children.size() == 1 && node.children[0].repetition == ParquetRepetition::kRepeated;
    if (node.meaning == ParquetMeaning::kList && has_one_repeated)
      return emit_repeated(node.children[0], element_of(node), out);
    if (node.meaning == ParquetMeaning::kMap && has_one_repeated && node.children[0].children.size() == 2)
      return emit_map(node.children[0], out);
    emit_struct(node, out, false);
  }
  // The element of a list is its repeated group's only field; in files of older writers (parquet-format,
  // "backward-compatibility rules") the repeated field itself.
  static const ParquetNode& element_of(const ParquetNode& list) {
    const ParquetNode& repeated = list.children[0];
    const bool is_old =
        repeated.children.size() != 1 || repeated.name == "array" || repeated.name == list.name + "_tuple";
    return is_old ? repeated : repeated.children[0];
  }
  void emit_struct(const ParquetNode& node, std::string& out, bool is_row) {
    out += '{';
    bool first = true;
    for (const auto& child : node.children) {
      const size_t before = out.size();
      if (!first) out += ',';
      append_json_string(out, child.name, name);
      out += ':';
      const size_t value = out.size();
      emit_field(child, out);
      if (!is_row && std::string_view(out).substr(value) == "null")
        out.resize(before);
      else
        first = false;
    }
    out += '}';
  }
  void emit_field(const ParquetNode& node, std::string& out) {
    if (node.repetition == ParquetRepetition::kRepeated)
      emit_repeated(node, node, out);
    else
      emit(node, out);
  }
  // a list: `element` is emitted for each entry of `repeated`
  void emit_repeated(const ParquetNode& repeated, const ParquetNode& element, std::string& out) {
    if (first_of(repeated).definition() < repeated.max_definition) {
      advance_all(repeated);
      out += "[]";
      return;
    }
    out += '[';
    bool first = true;
    do {
      if (!first) out += ',';
      first = false;
      if (&element == &repeated)
        emit(element, out);
      else
        emit_field(element, out);
    } while (first_of(repeated).repetition() == repeated.max_repetition);
    out += ']';
  }
  void emit_map(const ParquetNode& pairs, std::string& out) {
    if (first_of(pairs).definition() < pairs.max_definition) {
      advance_all(pairs);
      out += "{}";
      return;
    }
    out += '{';
    bool first = true;
    do {
      if (!first) out += ',';
      first = false;
      std::string key;
      emit_field(pairs.children[0], key);
      if (key.starts_with('"'))
        out += key;
      else
        append_json_string(out, key, name);
      out += ':';
      emit_field(pairs.children[1], out);
    } while (first_of(pairs).repetition() == pairs.max_repetition);
    out += '}';
  }
};

ParquetReader::ParquetReader(std::string_view bytes, std::string name) : impl_(std::make_unique<Impl>()) {
  impl_->file = bytes;
  impl_->name = std::move(name);
  impl_->footer = read_parquet_footer(bytes, impl_->name);
}
ParquetReader::ParquetReader(const fs::path& path) : impl_(std::make_unique<Impl>()) {
  impl_->map = map_file(path);
  impl_->file = {reinterpret_cast<const char*>(impl_->map.data()), static_cast<size_t>(impl_->map.size_bytes())};
  impl_->name = path.string();
  impl_->footer = read_parquet_footer(impl_->file, impl_->name);
}
ParquetReader::~ParquetReader() = default;
ParquetReader::ParquetReader(ParquetReader&&) noexcept = default;

int64_t ParquetReader::row() const { return impl_->row; }
int64_t ParquetReader::n_rows() const { return impl_->footer->n_rows; }
std::vector<std::string> ParquetReader::columns() const {
  std::vector<std::string> names;
  for (const auto& c : impl_->footer->root.children) names.push_back(c.name);
  return names;
}

bool ParquetReader::next(std::string& json) {
  Impl& s = *impl_;
  while (s.rows_left == 0) {
    if (s.group == s.footer->groups.size()) return false;
    s.open_group();
  }
  json.clear();
  s.emit_struct(s.footer->root, json, true);
  --s.rows_left;
  ++s.row;
  return true;
}

int64_t ParquetReader::skip(int64_t n) {
  Impl& s = *impl_;
  int64_t done = 0;
  std::string unused;
  while (done < n) {
    if (s.rows_left == 0) {
      if (s.group == s.footer->groups.size()) break;
      const int64_t rows = s.footer->groups[s.group].n_rows;
      if (rows <= n - done) {
        ++s.group;
        done += rows;
        s.row += rows;
        continue;
      }
    }
    if (!next(unused)) break;
    ++done;
  }
  return done;
}

}  // namespace pmetal::formats
