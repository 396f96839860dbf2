#include "formats/json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace pmetal::formats {
namespace {

using nlohmann::ordered_json;
using Object = ordered_json::object_t;

// Builds a value from events. Members are appended without a look-up (ordered_json searches linearly, which would be
// quadratic in an index of 100 000 tensors); an object is checked for repeated keys once, when it closes.
class Builder final : public JsonEvents {
 public:
  Builder(const std::string& source, bool refuse_duplicate_keys)
      : source_(source), refuse_duplicate_keys_(refuse_duplicate_keys) {}

  ordered_json take() { return std::move(root_); }

  void on_null() override { slot() = nullptr; }
  void on_bool(bool value) override { slot() = value; }
  void on_integer(int64_t value) override { slot() = value; }
  void on_unsigned(uint64_t value) override { slot() = value; }
  void on_number(double value) override { slot() = value; }
  void on_string(std::string value) override { slot() = std::move(value); }
  void on_key(std::string key) override {
    open_.back()->get_ref<Object&>().emplace_back(std::move(key), ordered_json());
  }
  void on_begin_object() override { open(ordered_json::object()); }
  void on_begin_array() override { open(ordered_json::array()); }
  void on_end_array() override { open_.pop_back(); }
  void on_end_object() override {
    settle_duplicates(open_.back()->get_ref<Object&>());
    open_.pop_back();
  }

 private:
  // where the next value goes; a container stays in place while it is open, as its parent does not grow meanwhile
  ordered_json& slot() {
    if (open_.empty()) return root_;
    ordered_json& parent = *open_.back();
    if (parent.is_object()) return parent.get_ref<Object&>().back().second;
    parent.push_back(nullptr);
    return parent.back();
  }
  void open(ordered_json container) {
    ordered_json& place = slot();
    place = std::move(container);
    open_.push_back(&place);
  }

  // keeps the first place and the last value of each key
  void settle_duplicates(Object& object) const {
    const auto member = object.begin();  // ordered_map hides the [] of the vector that it is
    std::vector<size_t> order(object.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return member[a].first < member[b].first; });
    std::vector<size_t> repeated;
    for (size_t i = 0; i + 1 < order.size(); ++i) {
      const size_t first = order[i];
      while (i + 1 < order.size() && member[order[i + 1]].first == member[first].first) {
        if (refuse_duplicate_keys_)
          fail(ErrorCode::kInvalidInput, "{}: key \"{}\" occurs twice in one object; remove one of them", source_,
               member[first].first);
        repeated.push_back(order[++i]);
        std::swap(member[first].second, member[order[i]].second);
      }
    }
    if (repeated.empty()) return;
    std::sort(repeated.begin(), repeated.end());
    Object kept;
    for (size_t i = 0, next = 0; i < object.size(); ++i) {
      if (next < repeated.size() && repeated[next] == i)
        ++next;
      else
        kept.emplace_back(member[i].first, std::move(member[i].second));
    }
    object.swap(kept);
  }

  const std::string& source_;
  bool refuse_duplicate_keys_;
  ordered_json root_;
  std::vector<ordered_json*> open_;
};

class Dumper {
 public:
  Dumper(int indent, NonFinite non_finite) : indent_(indent), non_finite_(non_finite) {}

  void value(const ordered_json& v, int depth) {
    if (v.is_object() && !v.empty()) {
      members(v, depth, '{', '}');
    } else if (v.is_array() && !v.empty()) {
      members(v, depth, '[', ']');
    } else if (v.is_number_float() && !std::isfinite(v.get<double>())) {
      const double d = v.get<double>();
      out_ += non_finite_ == NonFinite::kNull ? "null" : std::isnan(d) ? "NaN" : d > 0 ? "Infinity" : "-Infinity";
    } else {
      scalar(v);
    }
  }
  std::string take() { return std::move(out_); }

 private:
  void scalar(const ordered_json& v) { out_ += v.dump(-1, ' ', false, ordered_json::error_handler_t::replace); }
  void new_line(int depth) {
    if (indent_ < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(indent_) * static_cast<size_t>(depth), ' ');
  }
  void members(const ordered_json& v, int depth, char opening, char closing) {
    out_ += opening;
    for (auto it = v.begin(); it != v.end(); ++it) {
      if (it != v.begin()) out_ += ',';
      new_line(depth + 1);
      if (v.is_object()) {
        scalar(it.key());
        out_ += indent_ < 0 ? ":" : ": ";
      }
      value(*it, depth + 1);
    }
    new_line(depth);
    out_ += closing;
  }

  int indent_;
  NonFinite non_finite_;
  std::string out_;
};

}  // namespace

ordered_json parse_json(std::string_view text, const std::string& source, const JsonOptions& options) {
  Builder builder(source, options.refuse_duplicate_keys);
  parse_json_events(text, source, options.limits, builder);
  return builder.take();
}

ordered_json read_json(const std::filesystem::path& path, const JsonOptions& options) {
  std::error_code ignored;
  const auto size = std::filesystem::file_size(path, ignored);
  if (!ignored && size > options.limits.max_bytes)
    fail(ErrorCode::kInvalidInput, "{}: is {} bytes long, at most {} are read as JSON", path.string(), size,
         options.limits.max_bytes);
  return parse_json(read_text(path), path.string(), options);
}

std::string dump_json(const ordered_json& value, int indent, NonFinite non_finite) {
  Dumper dumper(indent, non_finite);
  dumper.value(value, 0);
  return dumper.take();
}

}  // namespace pmetal::formats
