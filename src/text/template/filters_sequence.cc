// Filters over sequences and mappings. Those that are generators in jinja2 are lazy here too: map, select, batch …
#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/methods.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

// "a.b.0": the way from an item to the value a filter looks at
class AttributePath {
 public:
  explicit AttributePath(const Value& attribute) {
    if (attribute.is_none()) return;
    if (!attribute.is_string()) {
      parts_.push_back(attribute);
      return;
    }
    size_t begin = 0;
    const std::string& text = attribute.text();
    while (true) {
      const size_t dot = text.find('.', begin);
      const std::string part = text.substr(begin, dot - begin);
      const bool is_index =
          !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string::npos;
      parts_.push_back(is_index ? Value::integer(std::stol(part)) : Value::string(part));
      if (dot == std::string::npos) break;
      begin = dot + 1;
    }
  }
  Value follow(Interpreter& in, Value v, const Value* fallback = nullptr) const {
    for (const Value& part : parts_) {
      v = in.get_item(v, part);
      if (fallback != nullptr && v.is_undefined()) v = *fallback;
    }
    return v;
  }

 private:
  std::vector<Value> parts_;
};

// make_iterator when the first element is asked for, as generators do
std::function<bool(Value&)> lazy_iterator(const Value& v) {
  return [v, next = std::function<bool(Value&)>()](Value& out) mutable {
    if (!next) next = make_iterator(v);
    return next(out);
  };
}

Value ignore_case(const Value& v) { return v.is_string() ? Value::string(unicode::lower(v.text())) : v; }

// stable, as sorted(); `reverse` keeps the order of equal items too
void sort_by_key(Interpreter& in, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    in.charge(static_cast<size_t>(std::min(a.first.weight(), b.first.weight())));
    return reverse ? compare(b.first, a.first, "<") == -1 : compare(a.first, b.first, "<") == -1;
  });
}

Value list_of_second(std::vector<std::pair<Value, Value>>& keyed) {
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (auto& entry : keyed) items.push_back(std::move(entry.second));
  return Value::list(std::move(items));
}

Value filter_length(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("length", args);
  return Value::integer(length(in, v));
}

Value filter_list(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("list", args);
  return Value::list(to_vector(in, v));
}

Value filter_first(Interpreter&, const Value& v, CallArgs& args) {
  refuse_arguments("first", args);
  Value first;
  if (make_iterator(v)(first)) return first;
  return Value::undefined("No first item, sequence was empty.");
}

// reversed(v) has no meaning for one-shot iterators
std::vector<Value> reversed(Interpreter& in, const Value& v) {
  if (v.is(Kind::kIterator) || v.is(Kind::kObject) || v.is(Kind::kUndefined))
    throw_type_error(fmt::format("'{}' object is not reversible", type_name(v)));
  std::vector<Value> items = to_vector(in, v);
  std::reverse(items.begin(), items.end());
  return items;
}

Value filter_last(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("last", args);
  if (v.is_undefined()) return Value::undefined("No last item, sequence was empty.");
  if (v.is_string() || v.is_sequence() || v.is(Kind::kRange)) {
    if (auto last = index(in, v, -1)) return *last;
    return Value::undefined("No last item, sequence was empty.");
  }
  const std::vector<Value> items = reversed(in, v);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items[0];
}

Value filter_reverse(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("reverse", args);
  if (v.is_string()) return slice(in, v, Value(), Value(), Value::integer(-1));
  if (v.is(Kind::kIterator)) {
    std::vector<Value> items = to_vector(in, v);
    std::reverse(items.begin(), items.end());
    return Value::list(std::move(items));
  }
  const Value items = Value::list(v.is_undefined() ? std::vector<Value>() : reversed(in, v));
  return Value::iterator(make_iterator(items), items);
}

Value filter_random(Interpreter&, const Value&, CallArgs&) {
  fail(ErrorCode::kInvalidInput, "the random filter is not available: chat templates render the same text every time");
}

Value filter_join(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("join", args, {"d", "attribute"});
  const std::string separator = bound.has(0) ? in.to_text(bound[0]) : "";
  const AttributePath path(bound.get(1, Value()));
  std::string out;
  bool is_first = true;
  iterate(v, [&](const Value& item) {
    in.charge(1);
    if (!std::exchange(is_first, false)) out += separator;
    const std::string text = in.to_text(path.follow(in, item));
    in.charge_bytes(text.size() + separator.size());
    out += text;
    return true;
  });
  return in.make_string(std::move(out));
}

Value filter_items(Interpreter&, const Value& v, CallArgs& args) {
  refuse_arguments("items", args);
  if (v.is_undefined()) return Value::iterator([](Value&) { return false; }, Value());
  if (!v.is(Kind::kDict)) {
    // jinja2's filter is a generator: the error comes when the first item is asked for
    return Value::iterator([](Value&) -> bool { throw_type_error("Can only get item pairs from a mapping."); },
                           Value());
  }
  const Value view = make_view(v, DictViewObject::kItems);
  return Value::iterator(make_iterator(view), view);
}

Value filter_dictsort(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("dictsort", args, {"case_sensitive", "by", "reverse"});
  const bool is_case_sensitive = bound.boolean(0, false);
  const std::string by = bound.text(1, "key");
  if (by != "key" && by != "value") fail(ErrorCode::kInvalidInput, "You can only sort by either \"key\" or \"value\"");
  if (v.is_undefined()) throw_undefined(v);
  if (!v.is(Kind::kDict)) throw_type_error(fmt::format("'{}' object has no attribute 'items'", type_name(v)));
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : v.dict().items) {
    in.charge(1);
    const Value& sort_key = by == "key" ? key : value;
    keyed.emplace_back(is_case_sensitive ? sort_key : ignore_case(sort_key), Value::tuple({key, value}));
  }
  sort_by_key(in, keyed, bound.boolean(2, false));
  return list_of_second(keyed);
}

Value filter_sort(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("sort", args, {"reverse", "case_sensitive", "attribute"});
  const bool is_case_sensitive = bound.boolean(1, false);
  std::vector<AttributePath> paths;
  const Value attribute = bound.get(2, Value());
  if (attribute.is_string()) {
    size_t begin = 0;
    while (true) {
      const size_t comma = attribute.text().find(',', begin);
      paths.emplace_back(Value::string(attribute.text().substr(begin, comma - begin)));
      if (comma == std::string::npos) break;
      begin = comma + 1;
    }
  } else {
    paths.emplace_back(attribute);
  }
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : to_vector(in, v)) {
    std::vector<Value> key;
    for (const AttributePath& path : paths) {
      const Value k = path.follow(in, item);
      key.push_back(is_case_sensitive ? k : ignore_case(k));
    }
    keyed.emplace_back(Value::list(std::move(key)), item);
  }
  sort_by_key(in, keyed, bound.boolean(0, false));
  return list_of_second(keyed);
}

Value filter_unique(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("unique", args, {"case_sensitive", "attribute"});
  auto seen = std::make_shared<DictObject>();
  return Value::iterator(
      [&in, next = lazy_iterator(v), path = AttributePath(bound.get(1, Value())), seen,
       is_case_sensitive = bound.boolean(0, false)](Value& out) {
        while (next(out)) {
          in.charge(1);
          const Value key = path.follow(in, out);
          const Value folded = is_case_sensitive ? key : ignore_case(key);
          if (seen->find(folded) != nullptr) continue;
          seen->set(folded, Value());
          return true;
        }
        return false;
      },
      v);
}

Value extreme(Interpreter& in, const Value& v, CallArgs& args, const char* name, int wanted) {
  const Bound bound(name, args, {"case_sensitive", "attribute"});
  const AttributePath path(bound.get(1, Value()));
  const bool is_case_sensitive = bound.boolean(0, false);
  bool is_first = true;
  Value best, best_key;
  iterate(v, [&](const Value& item) {
    in.charge(1);
    Value key = path.follow(in, item);
    if (!is_case_sensitive) key = ignore_case(key);
    if (is_first || compare(key, best_key, wanted < 0 ? "<" : ">") == wanted) {
      best = item;
      best_key = key;
    }
    is_first = false;
    return true;
  });
  return is_first ? Value::undefined("No aggregated item, sequence was empty.") : best;
}
Value filter_min(Interpreter& in, const Value& v, CallArgs& args) { return extreme(in, v, args, "min", -1); }
Value filter_max(Interpreter& in, const Value& v, CallArgs& args) { return extreme(in, v, args, "max", 1); }

Value filter_sum(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("sum", args, {"attribute", "start"});
  const AttributePath path(bound.get(0, Value()));
  Value total = bound.get(1, Value::integer(0));
  if (total.is_string()) throw_type_error("sum() can't sum strings [use ''.join(seq) instead]");
  iterate(v, [&](const Value& item) {
    in.charge(1);
    total = binary(in, Op::kAdd, total, path.follow(in, item));
    return true;
  });
  return total;
}

// the parts of |slice, made when the first one is asked for
Value sliced(Interpreter& in, const Value& v, const Value& count, const Value& fill) {
  const std::vector<Value> items = to_vector(in, v);
  const int64_t slices = to_index(count);
  if (slices == 0) fail(ErrorCode::kInvalidInput, "integer division or modulo by zero");
  const auto size = static_cast<int64_t>(items.size());
  const int64_t each = floor_divide(size, slices), extra = floor_modulo(size, slices);
  std::vector<Value> out;
  int64_t begin = 0;
  for (int64_t i = 0; i < slices; ++i) {
    in.charge(1);
    const int64_t end = begin + each + (i < extra ? 1 : 0);
    std::vector<Value> part(items.begin() + begin, items.begin() + end);
    if (!fill.is_none() && i >= extra) part.push_back(fill);
    out.push_back(Value::list(std::move(part)));
    begin = end;
  }
  return Value::list(std::move(out));
}

Value filter_slice(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("slice", args, {"slices", "fill_with"}, 1);
  return Value::iterator(
      [&in, v, count = bound[0], fill = bound.get(1, Value()),
       next = std::function<bool(Value&)>()](Value& out) mutable {
        if (!next) next = make_iterator(sliced(in, v, count, fill));
        return next(out);
      },
      v);
}

Value filter_batch(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("batch", args, {"linecount", "fill_with"}, 1);
  const int64_t size = to_index(bound[0]);
  const Value fill = bound.get(1, Value());
  return Value::iterator(
      [&in, next = lazy_iterator(v), size, fill, pending = std::vector<Value>(), is_done = false](Value& out) mutable {
        Value item;
        while (!is_done) {
          if (!next(item)) {
            is_done = true;
            if (pending.empty()) return false;
            while (!fill.is_none() && static_cast<int64_t>(pending.size()) < size) {
              in.charge(1);
              pending.push_back(fill);
            }
            out = Value::list(std::move(pending));
            return true;
          }
          in.charge(1);
          if (static_cast<int64_t>(pending.size()) == size) {
            out = Value::list(std::move(pending));
            pending = {item};
            return true;
          }
          pending.push_back(item);
        }
        return false;
      },
      v);
}

Value filter_groupby(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(bound[0]);
  const Value fallback = bound.get(1, Value());
  const Value* use_fallback = fallback.is_none() ? nullptr : &fallback;
  const bool is_case_sensitive = bound.boolean(2, false);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : to_vector(in, v)) {
    const Value key = path.follow(in, item, use_fallback);
    keyed.emplace_back(is_case_sensitive ? key : ignore_case(key), item);
  }
  sort_by_key(in, keyed, false);
  std::vector<Value> groups;
  for (size_t i = 0; i < keyed.size();) {
    const Value key = keyed[i].first;
    std::vector<Value> members;
    for (; i < keyed.size() && equal(keyed[i].first, key); ++i) members.push_back(keyed[i].second);
    const Value shown = is_case_sensitive ? key : path.follow(in, members[0], use_fallback);
    groups.push_back(Value::tuple({shown, Value::list(std::move(members))}, true));
  }
  return Value::list(std::move(groups));
}

Value filter_attr(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("attr", args, {"name"}, 1);
  const std::string name = bound.text(0, "");
  // of names like __this__ an undefined value says that it has none, of others that it is undefined
  if (v.is_undefined() && name.starts_with("__") && !is_attribute_of_undefined(name))
    return Value::undefined_attribute(v, bound[0]);
  // attributes only: the items of a dict are not found
  if (v.is(Kind::kDict) && !find_method(v, name) && !is_mutating_method(v, name))
    return Value::undefined_attribute(v, bound[0]);
  return in.get_attribute(v, bound[0]);
}

Value filter_map(Interpreter& in, const Value& v, CallArgs& args) {
  // jinja2's is a generator: nothing is checked before the first item, and a false input gives none
  auto shared = std::make_shared<CallArgs>(std::move(args));
  return Value::iterator(
      [&in, v, shared, next = std::function<bool(Value&)>(), path = std::optional<AttributePath>(),
       name = std::string(), fallback = Value()](Value& out) mutable {
        if (!next) {
          if (!truth(v)) return false;
          if (shared->positional.empty() && !shared->keyword.empty()) {
            for (const auto& [key, value] : shared->keyword) {
              if (key == "attribute")
                path.emplace(value);
              else if (key == "default")
                fallback = value;
              else
                throw_type_error(fmt::format("Unexpected keyword argument '{}'", key));
            }
            if (!path) throw_type_error("map requires a filter argument");
          } else {
            if (shared->positional.empty()) throw_type_error("map requires a filter argument");
            name = in.to_text(shared->positional[0]);
            shared->positional.erase(shared->positional.begin());
          }
          next = make_iterator(v);
        }
        Value item;
        if (!next(item)) return false;
        in.charge(1);
        if (path) {
          out = path->follow(in, item, fallback.is_none() ? nullptr : &fallback);
        } else {
          CallArgs call = *shared;
          out = in.call_filter(name, item, call);
        }
        return true;
      },
      v);
}

// select, reject, selectattr, rejectattr
Value choose(Interpreter& in, const Value& v, CallArgs& args, bool keep, bool by_attribute) {
  auto shared = std::make_shared<CallArgs>(std::move(args));
  return Value::iterator(
      [&in, v, shared, keep, by_attribute, next = std::function<bool(Value&)>(), path = std::optional<AttributePath>(),
       name = std::optional<std::string>()](Value& out) mutable {
        if (!next) {
          if (!truth(v)) return false;
          auto& positional = shared->positional;
          if (by_attribute) {
            if (positional.empty()) throw_type_error("Missing parameter for attribute name");
            path.emplace(positional[0]);
            positional.erase(positional.begin());
          }
          if (!positional.empty()) {
            name = in.to_text(positional[0]);
            positional.erase(positional.begin());
          }
          next = make_iterator(v);
        }
        Value item;
        while (next(item)) {
          in.charge(1);
          const Value subject = path ? path->follow(in, item) : item;
          bool holds;
          if (name) {
            CallArgs call = *shared;
            holds = in.call_test(*name, subject, call);
          } else {
            holds = truth(subject);
          }
          if (holds != keep) continue;
          out = item;
          return true;
        }
        return false;
      },
      v);
}
Value filter_select(Interpreter& in, const Value& v, CallArgs& args) { return choose(in, v, args, true, false); }
Value filter_reject(Interpreter& in, const Value& v, CallArgs& args) { return choose(in, v, args, false, false); }
Value filter_selectattr(Interpreter& in, const Value& v, CallArgs& args) { return choose(in, v, args, true, true); }
Value filter_rejectattr(Interpreter& in, const Value& v, CallArgs& args) { return choose(in, v, args, false, true); }

constexpr FilterEntry kFilters[] = {{"length", filter_length},
                                    {"count", filter_length},
                                    {"list", filter_list},
                                    {"first", filter_first},
                                    {"last", filter_last},
                                    {"join", filter_join},
                                    {"items", filter_items},
                                    {"map", filter_map},
                                    {"select", filter_select},
                                    {"reject", filter_reject},
                                    {"selectattr", filter_selectattr},
                                    {"rejectattr", filter_rejectattr},
                                    {"dictsort", filter_dictsort},
                                    {"sort", filter_sort},
                                    {"unique", filter_unique},
                                    {"min", filter_min},
                                    {"max", filter_max},
                                    {"sum", filter_sum},
                                    {"reverse", filter_reverse},
                                    {"random", filter_random},
                                    {"slice", filter_slice},
                                    {"batch", filter_batch},
                                    {"groupby", filter_groupby},
                                    {"attr", filter_attr}};

}  // namespace

FilterTable sequence_filters() { return {std::begin(kFilters), std::end(kFilters)}; }

}  // namespace pmetal::text::jinja
