// The writing half of parquet.h: rows of JSON are shredded into columns (Dremel levels) as they come; a row group is
// written when it is full. Every field is optional; lists have the standard three levels; pages are v1, PLAIN, zstd.
#include <cstring>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/block_codec.h"
#include "formats/parquet.h"
#include "formats/thrift.h"

namespace pmetal::formats {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxGroupBytes = size_t{64} << 20;  // a row group is kept in memory until it is written
constexpr int kMaxNesting = 32;

enum class Shape { kUnknown, kBool, kInteger, kNumber, kText, kList, kStruct };
const char* name_of(Shape shape) {
  static constexpr const char* kNames[] = {"null", "true or false", "an integer", "a number",
                                           "text", "a list",        "an object"};
  return kNames[static_cast<int>(shape)];
}

struct Field {
  std::string name, path;
  Shape shape = Shape::kUnknown;
  std::vector<std::unique_ptr<Field>> children;  // struct: fields in order of appearance; list: the element
  int definition = 0, repetition = 0;            // levels when this field is present
  // leaves
  std::string values, repetitions, definitions;  // PLAIN values; one byte per level
  int64_t n_entries = 0;
  uint8_t pending_bits = 0;  // booleans are packed
  int n_pending = 0;

  bool is_leaf() const { return shape != Shape::kList && shape != Shape::kStruct; }
  Field* child(const std::string& key) {
    for (auto& c : children)
      if (c->name == key) return c.get();
    return nullptr;
  }
};

Shape shape_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::boolean: return Shape::kBool;
    case Json::value_t::number_integer: return Shape::kInteger;
    case Json::value_t::number_unsigned: return value.get<uint64_t>() > INT64_MAX ? Shape::kNumber : Shape::kInteger;
    case Json::value_t::number_float: return Shape::kNumber;
    case Json::value_t::string: return Shape::kText;
    case Json::value_t::array: return Shape::kList;
    case Json::value_t::object: return Shape::kStruct;
    default: return Shape::kUnknown;
  }
}

void merge(Field& field, const Json& value, int depth) {
  const Shape shape = shape_of(value);
  if (shape == Shape::kUnknown) return;
  if (depth > kMaxNesting) fail(ErrorCode::kInvalidInput, "field \"{}\" nests deeper than {}", field.path, kMaxNesting);
  const bool is_numeric = (shape == Shape::kInteger || shape == Shape::kNumber) &&
                          (field.shape == Shape::kInteger || field.shape == Shape::kNumber);
  if (field.shape == Shape::kUnknown)
    field.shape = shape;
  else if (is_numeric)
    field.shape = shape == field.shape ? shape : Shape::kNumber;
  else if (shape != field.shape)
    fail(
        ErrorCode::kInvalidInput,
        "field \"{}\" is {} in one row and {} in another; a Parquet column has one type. Convert to JSON Lines instead",
        field.path, name_of(field.shape), name_of(shape));
  const auto add = [&](const std::string& name, const std::string& path) -> Field& {
    field.children.push_back(std::make_unique<Field>());
    field.children.back()->name = name;
    field.children.back()->path = path;
    return *field.children.back();
  };
  if (shape == Shape::kList) {
    Field& element = field.children.empty() ? add("element", field.path + "[]") : *field.children[0];
    for (const auto& item : value) merge(element, item, depth + 1);
  } else if (shape == Shape::kStruct) {
    for (const auto& [key, item] : value.items()) {
      Field* child = field.child(key);
      merge(child ? *child : add(key, field.path.empty() ? key : field.path + "." + key), item, depth + 1);
    }
  }
}

void assign_levels(Field& field, int definition, int repetition, bool is_root) {
  field.definition = definition + (is_root ? 0 : 1);
  field.repetition = repetition;
  if (field.shape == Shape::kStruct && field.children.empty())
    fail(ErrorCode::kInvalidInput, "field \"{}\" is an object without fields in every row; Parquet cannot hold that",
         field.path);
  for (auto& child : field.children)
    assign_levels(*child, field.definition + (field.shape == Shape::kList ? 1 : 0),
                  repetition + (field.shape == Shape::kList ? 1 : 0), false);
}

void collect(Field& field, std::vector<Field*>& leaves) {
  if (field.is_leaf()) leaves.push_back(&field);
  for (auto& child : field.children) collect(*child, leaves);
}

template <class T>
void append_raw(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void push_entry(Field& leaf, int repetition, int definition) {
  leaf.repetitions += static_cast<char>(repetition);
  leaf.definitions += static_cast<char>(definition);
  ++leaf.n_entries;
}

void push_value(Field& leaf, const Json& value) {
  const auto shape = shape_of(value);
  const bool fits = shape == leaf.shape || (leaf.shape == Shape::kNumber && shape == Shape::kInteger);
  PMETAL_ASSERT(fits, "field {} was not observed as {}", leaf.path, name_of(shape));
  switch (leaf.shape) {
    case Shape::kBool:
      leaf.pending_bits |= static_cast<uint8_t>(value.get<bool>() << leaf.n_pending);
      if (++leaf.n_pending == 8) {
        leaf.values += static_cast<char>(leaf.pending_bits);
        leaf.pending_bits = 0;
        leaf.n_pending = 0;
      }
      break;
    case Shape::kInteger: append_raw(leaf.values, value.get<int64_t>()); break;
    case Shape::kNumber: append_raw(leaf.values, value.get<double>()); break;
    default: {
      const auto& text = value.get_ref<const std::string&>();
      append_raw(leaf.values, static_cast<uint32_t>(text.size()));
      leaf.values += text;
    }
  }
}

// `definition`: how many optional or repeated fields above are present when this one is null
void shred(Field& field, const Json* value, int repetition, int definition) {
  const bool is_null = value == nullptr || value->is_null();
  if (field.is_leaf()) {
    push_entry(field, repetition, is_null ? definition : field.definition);
    if (!is_null) push_value(field, *value);
    return;
  }
  if (is_null || (field.shape == Shape::kList && value->empty())) {
    for (auto& child : field.children) shred(*child, nullptr, repetition, is_null ? definition : field.definition);
    return;
  }
  if (field.shape == Shape::kList) {
    Field& element = *field.children[0];
    bool first = true;
    for (const auto& item : *value) {
      shred(element, &item, first ? repetition : field.repetition + 1, field.definition + 1);
      first = false;
    }
    return;
  }
  for (auto& child : field.children) {
    const auto it = value->find(child->name);
    shred(*child, it == value->end() ? nullptr : &*it, repetition, field.definition);
  }
}

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

// levels as runs (width below 8 bits, so a run's value is one byte), with their length in front
void append_levels(std::string& out, const std::string& levels, int max_level) {
  if (max_level == 0) return;
  std::string runs;
  for (size_t i = 0; i < levels.size();) {
    size_t end = i;
    while (end < levels.size() && levels[end] == levels[i]) ++end;
    append_varint(runs, static_cast<uint64_t>(end - i) << 1);
    runs += levels[i];
    i = end;
  }
  append_raw(out, static_cast<uint32_t>(runs.size()));
  out += runs;
}

int physical_type(Shape shape) {
  return shape == Shape::kBool ? 0 : shape == Shape::kInteger ? 2 : shape == Shape::kNumber ? 5 : 6;
}

struct Chunk {
  int type;
  std::vector<std::string> path;
  int64_t n_values, size, packed_size, offset;
};
struct Group {
  std::vector<Chunk> chunks;
  int64_t n_rows;
};

void count_elements(const Field& field, size_t& n) {
  n += field.shape == Shape::kList ? 2 : 1;  // a list has its repeated group as well
  for (const auto& child : field.children) count_elements(*child, n);
}

void write_element(ThriftWriter& out, const Field& field, bool is_root) {
  out.begin_struct();
  if (field.is_leaf()) out.i32(1, physical_type(field.shape));
  if (!is_root) out.i32(3, 1);  // optional
  out.binary(4, is_root ? "schema" : field.name);
  if (!field.is_leaf()) out.i32(5, static_cast<int64_t>(field.children.size()));
  const bool is_text = physical_type(field.shape) == 6 && field.is_leaf();
  if (is_text) out.i32(6, 0);                      // UTF8
  if (field.shape == Shape::kList) out.i32(6, 3);  // LIST
  if (is_text || field.shape == Shape::kList) {
    out.structure(10);
    out.structure(is_text ? 1 : 3);
    out.end_struct();
    out.end_struct();
  }
  out.end_struct();
  if (field.shape == Shape::kList) {
    out.begin_struct();
    out.i32(3, 2);  // repeated
    out.binary(4, "list");
    out.i32(5, 1);
    out.end_struct();
  }
  for (const auto& child : field.children) write_element(out, *child, false);
}

void paths(const Field& field, std::vector<std::string> path, bool is_root,
           std::vector<std::vector<std::string>>& out) {
  if (!is_root) path.push_back(field.name);
  if (field.is_leaf()) out.push_back(path);
  if (field.shape == Shape::kList) path.push_back("list");
  for (const auto& child : field.children) paths(*child, path, false, out);
}

Json parse_row(std::string_view text) {
  Json row = Json::parse(text, nullptr, false);
  if (row.is_discarded() || !row.is_object())
    fail(ErrorCode::kInvalidInput, "a row is not a JSON object: {:.80}", text);
  return row;
}

}  // namespace

struct ParquetWriter::Impl {
  fs::path path;
  int64_t rows_per_group;
  Field root;
  std::vector<Field*> leaves;
  std::vector<std::vector<std::string>> leaf_paths;
  std::optional<AtomicFile> file;
  std::vector<Group> groups;
  int64_t rows_in_group = 0, n_rows = 0;

  void start() {
    if (file) return;
    if (root.children.empty()) fail(ErrorCode::kInvalidInput, "{}: there are no rows to write", path.string());
    root.shape = Shape::kStruct;
    assign_levels(root, 0, 0, true);
    collect(root, leaves);
    paths(root, {}, true, leaf_paths);
    file.emplace(path);
    file->write("PAR1");
  }
  void flush_group() {
    if (rows_in_group == 0) return;
    Group group;
    group.n_rows = rows_in_group;
    for (size_t i = 0; i < leaves.size(); ++i) {
      Field& leaf = *leaves[i];
      if (leaf.n_pending > 0) leaf.values += static_cast<char>(leaf.pending_bits);
      std::string page;
      append_levels(page, leaf.repetitions, leaf.repetition);
      append_levels(page, leaf.definitions, leaf.definition);
      page += leaf.values;
      const std::string packed = compress_block(BlockCodec::kZstd, page);
      ThriftWriter header;
      header.begin_struct();
      header.i32(1, 0);
      header.i32(2, static_cast<int64_t>(page.size()));
      header.i32(3, static_cast<int64_t>(packed.size()));
      header.structure(5);
      header.i32(1, leaf.n_entries);
      header.i32(2, 0);
      header.i32(3, 3);
      header.i32(4, 3);
      header.end_struct();
      header.end_struct();
      const auto head = static_cast<int64_t>(header.bytes().size());
      group.chunks.push_back({physical_type(leaf.shape), leaf_paths[i], leaf.n_entries,
                              head + static_cast<int64_t>(page.size()), head + static_cast<int64_t>(packed.size()),
                              file->size_bytes()});
      file->write(header.bytes());
      file->write(packed);
      leaf.values.clear();
      leaf.repetitions.clear();
      leaf.definitions.clear();
      leaf.n_entries = leaf.n_pending = leaf.pending_bits = 0;
    }
    groups.push_back(std::move(group));
    rows_in_group = 0;
  }
  std::string footer() const {
    ThriftWriter out;
    out.begin_struct();
    out.i32(1, 1);
    size_t n_elements = 0;
    count_elements(root, n_elements);
    out.list(2, ThriftType::kStruct, n_elements);
    write_element(out, root, true);
    out.i64(3, n_rows);
    out.list(4, ThriftType::kStruct, groups.size());
    for (const auto& group : groups) {
      out.begin_struct();
      int64_t size = 0;
      out.list(1, ThriftType::kStruct, group.chunks.size());
      for (const auto& c : group.chunks) {
        size += c.size;
        out.begin_struct();
        out.i64(2, c.offset);
        out.structure(3);
        out.i32(1, c.type);
        out.list(2, ThriftType::kI32, 2);
        out.element(int64_t{0});
        out.element(int64_t{3});
        out.list(3, ThriftType::kBinary, c.path.size());
        for (const auto& part : c.path) out.element(std::string_view(part));
        out.i32(4, 6);  // zstd
        out.i64(5, c.n_values);
        out.i64(6, c.size);
        out.i64(7, c.packed_size);
        out.i64(9, c.offset);
        out.end_struct();
        out.end_struct();
      }
      out.i64(2, size);
      out.i64(3, group.n_rows);
      out.end_struct();
    }
    out.binary(6, "pmetal");
    out.end_struct();
    return out.bytes();
  }
};

ParquetWriter::ParquetWriter(fs::path path, int64_t rows_per_group) : impl_(std::make_unique<Impl>()) {
  impl_->path = std::move(path);
  impl_->rows_per_group = rows_per_group;
  impl_->root.shape = Shape::kStruct;
}
ParquetWriter::~ParquetWriter() = default;

void ParquetWriter::observe(std::string_view json_row) {
  PMETAL_ASSERT(!impl_->file, "observe() after write()");
  merge(impl_->root, parse_row(json_row), 0);
}

void ParquetWriter::write(std::string_view json_row) {
  Impl& s = *impl_;
  s.start();
  const Json row = parse_row(json_row);
  for (auto& child : s.root.children) {
    const auto it = row.find(child->name);
    shred(*child, it == row.end() ? nullptr : &*it, 0, 0);
  }
  ++s.rows_in_group;
  ++s.n_rows;
  size_t bytes = 0;
  for (const Field* leaf : s.leaves) bytes += leaf->values.size();
  if (s.rows_in_group == s.rows_per_group || bytes > kMaxGroupBytes) s.flush_group();
}

void ParquetWriter::finish() {
  Impl& s = *impl_;
  s.start();
  s.flush_group();
  const std::string footer = s.footer();
  s.file->write(footer);
  std::string tail;
  append_raw(tail, static_cast<uint32_t>(footer.size()));
  s.file->write(tail + "PAR1");
  s.file->commit();
}

}  // namespace pmetal::formats
