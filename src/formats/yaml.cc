#include "formats/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "formats/json_events.h"
#include "formats/text.h"

namespace pmetal::formats {
namespace {

using nlohmann::ordered_json;

// Job files are hundreds of lines; the slowest hostile text of this size that we found takes about a second.
constexpr size_t kMaxBytes = size_t{1} << 20;
// values of the whole document after aliases are expanded: nine lines of ten aliases each would make a billion
constexpr int64_t kMaxValues = 100'000;
constexpr size_t kMaxExpandedBytes = size_t{16} << 20;
constexpr size_t kMaxDepth = 100;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::optional<ordered_json> to_integer(std::string_view text) {
  const bool is_negative = text.starts_with('-');
  std::string_view digits = text;
  if (digits.starts_with('-') || digits.starts_with('+')) digits.remove_prefix(1);
  int base = 10;
  if (digits.size() == text.size() && (digits.starts_with("0x") || digits.starts_with("0o"))) {
    base = digits[1] == 'x' ? 16 : 8;
    digits.remove_prefix(2);
  }
  uint64_t value = 0;
  const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (status != std::errc() || end != digits.data() + digits.size() || digits.empty()) return std::nullopt;
  if (!is_negative) return ordered_json(value);
  if (value > uint64_t{1} << 63) return std::nullopt;
  return ordered_json(static_cast<int64_t>(0 - value));
}

// [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
bool has_form_of_float(std::string_view text) {
  size_t i = 0;
  const auto digits = [&] {
    const size_t start = i;
    while (i < text.size() && is_digit(text[i])) ++i;
    return i - start;
  };
  const auto sign = [&] { i += i < text.size() && (text[i] == '-' || text[i] == '+'); };
  sign();
  const size_t whole = digits();
  if (i < text.size() && text[i] == '.') {
    ++i;
    if (digits() == 0 && whole == 0) return false;
  } else if (whole == 0) {
    return false;
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    sign();
    if (digits() == 0) return false;
  }
  return i == text.size();
}

std::optional<double> to_double(std::string_view text) {
  std::string_view word = text;
  const bool is_negative = word.starts_with('-');
  if (is_negative || word.starts_with('+')) word.remove_prefix(1);
  if (word == ".inf" || word == ".Inf" || word == ".INF")
    return is_negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  if (text == ".nan" || text == ".NaN" || text == ".NAN") return std::numeric_limits<double>::quiet_NaN();
  if (!has_form_of_float(text)) return std::nullopt;
  double value = 0;
  if (std::from_chars(word.data(), word.data() + word.size(), value).ec != std::errc()) return std::nullopt;
  return is_negative ? -value : value;
}

bool is_null_word(std::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}
std::optional<bool> to_bool(std::string_view text) {
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  return std::nullopt;
}

ordered_json typed(const std::string& text) {
  if (is_null_word(text)) return nullptr;
  if (const auto b = to_bool(text)) return *b;
  if (auto i = to_integer(text)) return *std::move(i);
  if (const auto d = to_double(text)) return *d;
  return text;
}

class Builder final : public YAML::EventHandler {
 public:
  Builder(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  ordered_json take() { return std::move(root_); }

  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& message) const {
    fail(ErrorCode::kInvalidInput, "{}:{}:{}: {}", source_, mark.line + 1, mark.column + 1, message);
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++n_documents_ > 1)
      refuse(mark, "a second document begins here; keep one, and check the indentation if it was meant to be one");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(mark, anchor, nullptr, "~"); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto it = anchors_.find(anchor);
    if (it == anchors_.end()) refuse(mark, "this alias is used inside the value it stands for");
    spend(mark, it->second.n_values - 1, it->second.n_bytes);
    add(mark, 0, ordered_json(it->second.value), std::string(it->second.text));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    spend(mark, 0, text.size());
    if (tag != "?") check_closing_quote(mark);
    const bool is_key = expects_key();
    if (is_key && text == "<<" && tag != "!")
      refuse(mark, "merge keys (<<) are not part of YAML 1.2; write the fields out or use an alias as a value");
    add(mark, anchor, is_key ? ordered_json(text) : scalar(mark, tag, text), text);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag, "tag:yaml.org,2002:seq");
    open(mark, anchor, ordered_json::array());
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag, "tag:yaml.org,2002:map");
    open(mark, anchor, ordered_json::object());
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    ordered_json* value;
    YAML::anchor_t anchor;
    int64_t values_before;  // spent before this container
    size_t bytes_before;
    bool has_key = false;  // a key waits for its value
    std::unordered_set<std::string> keys;
  };
  struct Anchor {
    ordered_json value;
    std::string text;  // of a scalar, as it reads when the alias is a key
    int64_t n_values;
    size_t n_bytes;
  };

  bool expects_key() const { return !open_.empty() && open_.back().value->is_object() && !open_.back().has_key; }

  ordered_json scalar(const YAML::Mark& mark, const std::string& tag, const std::string& text) const {
    if (tag == "!" || tag == "tag:yaml.org,2002:str") return text;
    if (tag.empty() || tag == "?") return typed(text);
    ordered_json value = typed(text);
    if (tag == "tag:yaml.org,2002:null" && value.is_null()) return value;
    if (tag == "tag:yaml.org,2002:bool" && value.is_boolean()) return value;
    if (tag == "tag:yaml.org,2002:int" && value.is_number_integer()) return value;
    if (tag == "tag:yaml.org,2002:float" && value.is_number()) return value.get<double>();
    refuse(mark, fmt::format("the tag {} does not fit the value \"{}\"", shortened(tag), shortened(text)));
  }
  // yaml-cpp lets the end of the file close a quoted scalar, which would swallow the fields after a forgotten quote.
  // `mark` is where the node begins: at its tag or anchor, if it has one.
  void check_closing_quote(const YAML::Mark& mark) const {
    size_t at = static_cast<size_t>(mark.pos);
    const auto has = [&] { return at < text_.size(); };
    const auto is_space = [&] { return std::string_view(" \t\r\n").find(text_[at]) != std::string_view::npos; };
    while (has() && (is_space() || text_[at] == '&' || text_[at] == '!' || text_[at] == '#')) {
      const bool is_comment = text_[at] == '#';
      if (!is_space())
        while (has() && (is_comment ? text_[at] != '\n' : !is_space())) ++at;
      else
        ++at;
    }
    if (!has() || (text_[at] != '"' && text_[at] != '\'')) return;  // a block scalar
    const char quote = text_[at++];
    while (has() && (text_[at] != quote || (quote == '\'' && text_.substr(at, 2) == "''")))
      at += text_[at] == quote || (quote == '"' && text_[at] == '\\') ? 2 : 1;
    if (!has()) refuse(mark, "this string has no closing quote");
  }
  void check_tag(const YAML::Mark& mark, const std::string& tag, std::string_view allowed) const {
    if (!tag.empty() && tag != "?" && tag != "!" && tag != allowed)
      refuse(mark, fmt::format("the tag {} is not known here", shortened(tag)));
  }

  void spend(const YAML::Mark& mark, int64_t n_values, size_t n_bytes) {
    n_values_ += n_values;
    n_bytes_ += n_bytes;
    if (n_values_ > kMaxValues || n_bytes_ > kMaxExpandedBytes)
      refuse(mark,
             fmt::format("more than {} values or {} bytes after aliases are expanded", kMaxValues, kMaxExpandedBytes));
  }

  // `text` is what a key reads as
  ordered_json& add(const YAML::Mark& mark, YAML::anchor_t anchor, ordered_json value, const std::string& text) {
    spend(mark, 1, 0);
    if (anchor != 0 && value.is_primitive()) anchors_[anchor] = {value, text, 1, text.size()};
    if (open_.empty()) return root_ = std::move(value);
    Open& top = open_.back();
    if (top.value->is_array()) {
      top.value->push_back(std::move(value));
      return top.value->back();
    }
    auto& members = top.value->get_ref<ordered_json::object_t&>();
    if (top.has_key) {
      top.has_key = false;
      return members.back().second = std::move(value);
    }
    if (!value.is_primitive()) refuse(mark, "a key must be a scalar, not a list or a mapping");
    if (!top.keys.insert(text).second) refuse(mark, fmt::format("key \"{}\" occurs twice", shortened(text)));
    members.emplace_back(text, ordered_json());
    top.has_key = true;
    return members.back().second;
  }

  void open(const YAML::Mark& mark, YAML::anchor_t anchor, ordered_json container) {
    if (open_.size() >= kMaxDepth) refuse(mark, fmt::format("nested deeper than {} levels", kMaxDepth));
    const int64_t values_before = n_values_;
    ordered_json& place = add(mark, 0, std::move(container), "");
    open_.push_back({&place, anchor, values_before, n_bytes_, false, {}});
  }
  void close() {
    const Open& top = open_.back();
    if (top.anchor != 0)
      anchors_[top.anchor] = {*top.value, "", n_values_ - top.values_before, n_bytes_ - top.bytes_before};
    open_.pop_back();
  }

  std::string_view text_;
  const std::string& source_;
  int n_documents_ = 0;
  ordered_json root_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Anchor> anchors_;
  int64_t n_values_ = 0;
  size_t n_bytes_ = 0;
};

// yaml-cpp replaces bytes that are not UTF-8 and takes some control bytes as they come: both are refused here.
void check_characters(std::string_view text, const std::string& source) {
  int line = 1;
  for (size_t i = 0, line_start = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t length = utf8_sequence_length(text.substr(i));
    const bool is_control = (c < 0x20 && c != '\t' && c != '\n' && c != '\r');
    if (length == 0 || is_control)
      fail(ErrorCode::kInvalidInput, "{}:{}:{}: byte 0x{:02x} is not {}", source, line, i - line_start + 1, c,
           is_control ? "allowed in YAML" : "valid UTF-8");
    i += length;
    if (c == '\n') {
      ++line;
      line_start = i;
    }
  }
}

class Writer {
 public:
  void document(const ordered_json& value) {
    if (is_block(value)) {
      block(value, 0);
    } else {
      out_ += inline_text(value);
      out_ += '\n';
    }
  }
  std::string take() { return std::move(out_); }

 private:
  static bool is_block(const ordered_json& v) { return v.is_structured() && !v.empty(); }

  void block(const ordered_json& v, size_t depth) {
    const std::string margin(2 * depth, ' ');
    for (auto it = v.begin(); it != v.end(); ++it) {
      out_ += margin;
      out_ += v.is_object() ? key_text(it.key(), margin) + ":" : "-";
      if (is_block(*it)) {
        out_ += '\n';
        block(*it, depth + 1);
      } else {
        out_ += ' ' + inline_text(*it) + '\n';
      }
    }
  }

  // `key: value` is for keys of at most 1024 characters; longer ones are marked with ?
  static std::string key_text(const std::string& key, const std::string& margin) {
    constexpr size_t kLongestSimpleKey = 1000;
    const std::string text = string_text(key);
    return text.size() <= kLongestSimpleKey ? text : "? " + text + "\n" + margin;
  }

  static std::string inline_text(const ordered_json& v) {
    if (v.is_string()) return string_text(v.get_ref<const std::string&>());
    if (!v.is_number_float()) return v.dump();  // null, true, 12, [], {}
    const auto d = v.get<double>();
    return std::isnan(d) ? ".nan" : std::isinf(d) ? (d > 0 ? ".inf" : "-.inf") : v.dump();
  }

  // plain where it reads back as the same string and needs no thought, quoted otherwise
  static std::string string_text(const std::string& text) {
    const auto is_plain = [](unsigned char c) {
      return std::isalnum(c) || c == '_' || c == '.' || c == '/' || c == '-';
    };
    const bool starts_plain = !text.empty() && (std::isalnum(static_cast<unsigned char>(text[0])) || text[0] == '_' ||
                                                text[0] == '/' || text[0] == '.');
    const bool is_marker = text.starts_with("...");
    if (starts_plain && !is_marker && std::all_of(text.begin(), text.end(), is_plain) && typed(text).is_string())
      return text;
    return json_quoted(text);
  }

  std::string out_;
};

}  // namespace

ordered_json parse_yaml(std::string_view text, const std::string& source) {
  if (text.size() > kMaxBytes)
    fail(ErrorCode::kInvalidInput, "{}: is {} bytes long, at most {} are read as YAML", source, text.size(), kMaxBytes);
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // byte order mark
  check_characters(text, source);
  Builder builder(text, source);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return nullptr;
    parser.HandleNextDocument(builder);  // refuses if there is one
  } catch (const YAML::Exception& error) {
    builder.refuse(error.mark, error.msg);
  }
  return builder.take();
}

ordered_json read_yaml(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto size = std::filesystem::file_size(path, ignored);
  if (!ignored && size > kMaxBytes)
    fail(ErrorCode::kInvalidInput, "{}: is {} bytes long, at most {} are read as YAML", path.string(), size, kMaxBytes);
  return parse_yaml(read_text(path), path.string());
}

std::string dump_yaml(const ordered_json& value) {
  Writer writer;
  writer.document(value);
  return writer.take();
}

}  // namespace pmetal::formats
