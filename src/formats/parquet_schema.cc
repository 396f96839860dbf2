#include "formats/parquet_schema.h"

#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace pmetal::formats {
namespace {

constexpr int kMaxNesting = 64;  // levels are bytes here; real schemas nest below ten

// One entry of the flat list in which the footer keeps the tree, depth first.
struct Element {
  int64_t type = -1, type_length = 0, repetition = 0, n_children = 0, converted = -1, scale = 0;
  bool has_children = false;
  std::string name;
  ParquetMeaning logical = ParquetMeaning::kNone;
  int64_t logical_scale = 0;
};

ParquetMeaning time_unit(ThriftReader& in, ParquetMeaning millis) {
  int unit = 0;
  in.read_struct([&](ThriftReader::Field f) {
    if (f.id == 2 && f.type == ThriftType::kStruct)
      in.read_struct([&](ThriftReader::Field u) {
        unit = u.id - 1;
        in.skip(u);
      });
    else
      in.skip(f);
  });
  if (unit < 0 || unit > 2) return ParquetMeaning::kNone;
  return static_cast<ParquetMeaning>(static_cast<int>(millis) + unit);
}

void read_logical(ThriftReader& in, Element& e) {
  in.read_struct([&](ThriftReader::Field f) {
    if (f.type != ThriftType::kStruct) return in.skip(f);
    switch (f.id) {
      case 1:
      case 4: e.logical = ParquetMeaning::kText; break;
      case 2: e.logical = ParquetMeaning::kMap; break;
      case 3: e.logical = ParquetMeaning::kList; break;
      case 5:
        e.logical = ParquetMeaning::kDecimal;
        return in.read_struct([&](ThriftReader::Field g) {
          if (g.id == 1)
            e.logical_scale = in.integer(g);
          else
            in.skip(g);
        });
      case 6: e.logical = ParquetMeaning::kDate; break;
      case 7: e.logical = time_unit(in, ParquetMeaning::kTimeMillis); return;
      case 8: e.logical = time_unit(in, ParquetMeaning::kTimestampMillis); return;
      case 10: {
        bool is_signed = true;
        in.read_struct([&](ThriftReader::Field g) {
          if (g.id == 2)
            is_signed = in.boolean(g);
          else
            in.skip(g);
        });
        e.logical = is_signed ? ParquetMeaning::kNone : ParquetMeaning::kUnsigned;
        return;
      }
      case 12: e.logical = ParquetMeaning::kJson; break;
      case 14: e.logical = ParquetMeaning::kUuid; break;
      case 15: e.logical = ParquetMeaning::kFloat16; break;
      default: break;
    }
    in.skip(f);
  });
}

Element read_element(ThriftReader& in) {
  Element e;
  in.read_struct([&](ThriftReader::Field f) {
    switch (f.id) {
      case 1: e.type = in.integer(f); break;
      case 2: e.type_length = in.integer(f); break;
      case 3: e.repetition = in.integer(f); break;
      case 4: e.name = in.binary(f); break;
      case 5:
        e.n_children = in.integer(f);
        e.has_children = true;
        break;
      case 6: e.converted = in.integer(f); break;
      case 7: e.scale = in.integer(f); break;
      case 10:
        if (f.type == ThriftType::kStruct)
          read_logical(in, e);
        else
          in.skip(f);
        break;
      default: in.skip(f);
    }
  });
  return e;
}

ParquetMeaning meaning_of(const Element& e) {
  if (e.logical != ParquetMeaning::kNone) return e.logical;
  switch (e.converted) {
    case 0:
    case 4: return ParquetMeaning::kText;
    case 1:
    case 2: return ParquetMeaning::kMap;
    case 3: return ParquetMeaning::kList;
    case 5: return ParquetMeaning::kDecimal;
    case 6: return ParquetMeaning::kDate;
    case 7: return ParquetMeaning::kTimeMillis;
    case 8: return ParquetMeaning::kTimeMicros;
    case 9: return ParquetMeaning::kTimestampMillis;
    case 10: return ParquetMeaning::kTimestampMicros;
    case 11:
    case 12:
    case 13:
    case 14: return ParquetMeaning::kUnsigned;
    case 19: return ParquetMeaning::kJson;
    default: return ParquetMeaning::kNone;
  }
}

class TreeBuilder {
 public:
  TreeBuilder(const std::vector<Element>& elements, const std::string& name) : elements_(elements), name_(name) {}

  ParquetNode build(int definition, int repetition, int depth) {
    if (at_ >= elements_.size()) bad("the schema ends early");
    const Element& e = elements_[at_++];
    if (depth > kMaxNesting) bad("the schema nests too deep");
    if (e.repetition < 0 || e.repetition > 2) bad("unknown repetition of \"" + e.name + "\"");
    ParquetNode node;
    node.name = e.name;
    node.meaning = meaning_of(e);
    const bool is_root = depth == 0;
    if (!is_root) node.repetition = static_cast<ParquetRepetition>(e.repetition);
    node.max_definition = definition + (node.repetition != ParquetRepetition::kRequired);
    node.max_repetition = repetition + (node.repetition == ParquetRepetition::kRepeated);
    node.leaf = n_leaves_;
    if (e.type < 0 || is_root) {
      if (e.n_children <= 0) bad("the group \"" + e.name + "\" has no fields");
      for (int64_t i = 0; i < e.n_children; ++i)
        node.children.push_back(build(node.max_definition, node.max_repetition, depth + 1));
      node.leaf_count = n_leaves_ - node.leaf;
      return node;
    }
    if (e.has_children && e.n_children != 0) bad("\"" + e.name + "\" is a value and a group at once");
    if (e.type > 7) bad("unknown type of \"" + e.name + "\"");
    node.type = static_cast<ParquetType>(e.type);
    if (node.type == ParquetType::kFixed && (e.type_length <= 0 || e.type_length > (1 << 20)))
      bad("impossible length of \"" + e.name + "\"");
    node.fixed_size = static_cast<int>(e.type_length);
    const int64_t scale = e.logical == ParquetMeaning::kDecimal ? e.logical_scale : e.scale;
    if (scale < 0 || scale > 1000) bad("impossible scale of \"" + e.name + "\"");
    node.scale = static_cast<int>(scale);
    node.leaf_count = 1;
    ++n_leaves_;
    return node;
  }
  bool is_complete() const { return at_ == elements_.size(); }

 private:
  [[noreturn]] void bad(const std::string& what) const { fail(ErrorCode::kInvalidInput, "{}: {}", name_, what); }
  const std::vector<Element>& elements_;
  const std::string& name_;
  size_t at_ = 0;
  int n_leaves_ = 0;
};

ParquetChunk read_chunk(ThriftReader& in, const std::string& name) {
  ParquetChunk chunk;
  int64_t data_offset = -1, dictionary_offset = -1;
  bool has_metadata = false;
  in.read_struct([&](ThriftReader::Field f) {
    if (f.id == 1)
      fail(ErrorCode::kUnsupported, "{}: columns lie in other files (\"{}\"); not supported", name, in.binary(f));
    if (f.id == 8) fail(ErrorCode::kUnsupported, "{}: the columns are encrypted; not supported", name);
    if (f.id != 3 || f.type != ThriftType::kStruct) return in.skip(f);
    has_metadata = true;
    in.read_struct([&](ThriftReader::Field g) {
      switch (g.id) {
        case 4: chunk.codec = static_cast<int>(in.integer(g)); break;
        case 5: chunk.n_values = in.integer(g); break;
        case 7: chunk.size_bytes = in.integer(g); break;
        case 9: data_offset = in.integer(g); break;
        case 11: dictionary_offset = in.integer(g); break;
        default: in.skip(g);
      }
    });
  });
  if (!has_metadata) fail(ErrorCode::kInvalidInput, "{}: a column without metadata", name);
  // some writers give 0 for "no dictionary"
  chunk.offset = dictionary_offset > 0 && dictionary_offset < data_offset ? dictionary_offset : data_offset;
  return chunk;
}

void collect_leaves(const ParquetNode& node, std::vector<const ParquetNode*>& leaves) {
  if (node.is_leaf()) leaves.push_back(&node);
  for (const auto& child : node.children) collect_leaves(child, leaves);
}

}  // namespace

std::unique_ptr<ParquetFooter> read_parquet_footer(std::string_view file, const std::string& name) {
  if (file.size() >= 4 && file.ends_with("PARE")) fail(ErrorCode::kUnsupported, "{}: the file is encrypted", name);
  if (file.size() < 12 || !file.starts_with("PAR1") || !file.ends_with("PAR1"))
    fail(ErrorCode::kInvalidInput, "{}: not a Parquet file, or cut short (it must begin and end with PAR1)", name);
  uint32_t footer_size;
  std::memcpy(&footer_size, file.data() + file.size() - 8, 4);
  if (footer_size > file.size() - 12)
    fail(ErrorCode::kInvalidInput, "{}: the footer claims {} of {} bytes", name, footer_size, file.size());
  ThriftReader in(file.substr(file.size() - 8 - footer_size, footer_size), name);

  auto footer = std::make_unique<ParquetFooter>();
  std::vector<Element> elements;
  in.read_struct([&](ThriftReader::Field f) {
    switch (f.id) {
      case 2: in.read_list(f, ThriftType::kStruct, [&] { elements.push_back(read_element(in)); }); break;
      case 3: footer->n_rows = in.integer(f); break;
      case 4:
        in.read_list(f, ThriftType::kStruct, [&] {
          ParquetRowGroup group;
          in.read_struct([&](ThriftReader::Field g) {
            if (g.id == 1)
              in.read_list(g, ThriftType::kStruct, [&] { group.chunks.push_back(read_chunk(in, name)); });
            else if (g.id == 3)
              group.n_rows = in.integer(g);
            else
              in.skip(g);
          });
          footer->groups.push_back(std::move(group));
        });
        break;
      default: in.skip(f);
    }
  });

  TreeBuilder builder(elements, name);
  footer->root = builder.build(0, 0, 0);
  if (!builder.is_complete()) fail(ErrorCode::kInvalidInput, "{}: the schema has stray fields", name);
  collect_leaves(footer->root, footer->leaves);
  int64_t rows = 0;
  for (const auto& group : footer->groups) {
    if (group.chunks.size() != footer->leaves.size())
      fail(ErrorCode::kInvalidInput, "{}: a row group has {} columns, the schema {}", name, group.chunks.size(),
           footer->leaves.size());
    for (const auto& c : group.chunks)
      if (c.offset < 4 || c.size_bytes < 0 || c.n_values < 0 || static_cast<uint64_t>(c.offset) > file.size() ||
          static_cast<uint64_t>(c.size_bytes) > file.size() - static_cast<uint64_t>(c.offset))
        fail(ErrorCode::kInvalidInput, "{}: a column lies at bytes {} + {} of {}; the file is damaged or cut short",
             name, c.offset, c.size_bytes, file.size());
    const auto sum = checked_add(rows, group.n_rows);
    if (group.n_rows < 0 || !sum) fail(ErrorCode::kInvalidInput, "{}: impossible number of rows", name);
    rows = *sum;
  }
  if (rows != footer->n_rows)
    fail(ErrorCode::kInvalidInput, "{}: {} rows are declared, the row groups hold {}", name, footer->n_rows, rows);
  return footer;
}

}  // namespace pmetal::formats
