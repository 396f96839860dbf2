#include "text/template/value.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "text/template/interpreter.h"
#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

void hold(Object& object, const Value& v) {
  object.depth = std::max(object.depth, v.depth() + 1);
  object.weight += v.weight();
}

void check(const Object& object) {
  if (object.depth > kMaxDepth) fail(ErrorCode::kInvalidInput, "values are nested more than {} deep", kMaxDepth);
  if (object.weight > kMaxWeight) fail(ErrorCode::kInvalidInput, "a value has more than {} elements", kMaxWeight);
}

}  // namespace

void measure(Object& object, std::initializer_list<const Value*> holds) {
  for (const Value* v : holds) hold(object, *v);
  check(object);
}

void throw_type_error(const std::string& message) { fail(ErrorCode::kInvalidInput, "{}", message); }

void throw_undefined(const Value& v) { fail(ErrorCode::kInvalidInput, "{}", v.undefined_object().text()); }

Value Value::boolean(bool b) {
  Value v;
  v.kind_ = Kind::kBool;
  v.scalar_.b = b;
  return v;
}

Value Value::integer(int64_t i) {
  Value v;
  v.kind_ = Kind::kInt;
  v.scalar_.i = i;
  return v;
}

Value Value::real(double d) {
  Value v;
  v.kind_ = Kind::kFloat;
  v.scalar_.d = d;
  return v;
}

Value Value::string(std::string text, bool is_markup) {
  auto object = std::make_shared<StringObject>();
  object->n_chars = unicode::count(text);
  object->text = std::move(text);
  object->weight = 1 + static_cast<int64_t>(object->text.size() / 64);
  Value v;
  v.kind_ = Kind::kString;
  v.is_markup_ = is_markup;
  v.object_ = std::move(object);
  return v;
}

Value Value::big_integer(std::string digits) {
  Value v = string(std::move(digits));
  v.kind_ = Kind::kBigInt;
  return v;
}

Value Value::list(std::vector<Value> items) {
  auto object = std::make_shared<ListObject>();
  for (const Value& item : items) hold(*object, item);
  check(*object);
  object->items = std::move(items);
  Value v;
  v.kind_ = Kind::kList;
  v.object_ = std::move(object);
  return v;
}

Value Value::tuple(std::vector<Value> items, bool is_group) {
  Value v = list(std::move(items));
  v.kind_ = Kind::kTuple;
  static_cast<ListObject&>(*v.object_).is_group = is_group;
  return v;
}

Value Value::dict(std::shared_ptr<DictObject> items) {
  items->depth = 0;
  items->weight = 1;
  for (const auto& [key, value] : items->items) {
    hold(*items, key);
    hold(*items, value);
  }
  check(*items);
  Value v;
  v.kind_ = Kind::kDict;
  v.object_ = std::move(items);
  return v;
}

Value Value::name_space(std::shared_ptr<DictObject> items) {
  Value v;
  v.kind_ = Kind::kNamespace;
  v.object_ = std::move(items);
  return v;
}

Value Value::range(int64_t start, int64_t stop, int64_t step) {
  auto object = std::make_shared<RangeObject>();
  object->start = start;
  object->stop = stop;
  object->step = step;
  Value v;
  v.kind_ = Kind::kRange;
  v.object_ = std::move(object);
  return v;
}

Value Value::iterator(std::function<bool(Value&)> next, const Value& source) {
  auto object = std::make_shared<IteratorObject>();
  object->next = std::move(next);
  measure(*object, {&source});
  Value v;
  v.kind_ = Kind::kIterator;
  v.object_ = std::move(object);
  return v;
}

Value Value::object(std::shared_ptr<DynamicObject> object) {
  Value v;
  v.kind_ = Kind::kObject;
  v.object_ = std::move(object);
  return v;
}

Value Value::undefined(std::string message) {
  auto object = std::make_shared<UndefinedObject>();
  object->message = std::move(message);
  Value v;
  v.kind_ = Kind::kUndefined;
  v.object_ = std::move(object);
  return v;
}

Value Value::undefined_attribute(const Value& owner, const Value& name) {
  Value v = undefined("");
  auto& object = static_cast<UndefinedObject&>(*v.object_);
  object.owner = type_name(owner);
  object.name = name;
  measure(object, {&name});
  return v;
}

Value Value::undefined_name(const Value& name) {
  Value v = undefined("");
  static_cast<UndefinedObject&>(*v.object_).name = name;
  return v;
}

std::string UndefinedObject::text() const {
  if (!message.empty()) return message;
  if (owner == nullptr) return fmt::format("{} is undefined", repr(name));
  const std::string described =
      std::strcmp(owner, "NoneType") == 0 ? std::string("None") : fmt::format("{} object", owner);
  if (!name.is_string()) return fmt::format("{} has no element {}", described, repr(name));
  return fmt::format("'{}' has no attribute {}", described, repr(name));
}

double Value::to_real() const {
  if (kind_ == Kind::kFloat) return scalar_.d;
  if (kind_ == Kind::kBigInt) return std::strtod(text().c_str(), nullptr);
  return static_cast<double>(as_int());
}

const StringObject& Value::string_object() const { return static_cast<const StringObject&>(*object_); }
const std::string& Value::text() const { return static_cast<const StringObject&>(*object_).text; }
const std::vector<Value>& Value::items() const { return static_cast<const ListObject&>(*object_).items; }
bool Value::is_group() const { return static_cast<const ListObject&>(*object_).is_group; }
DictObject& Value::dict() const { return static_cast<DictObject&>(*object_); }
const DictViewObject& Value::view() const { return static_cast<const DictViewObject&>(*object_); }
const RangeObject& Value::range() const { return static_cast<const RangeObject&>(*object_); }
IteratorObject& Value::iterator() const { return static_cast<IteratorObject&>(*object_); }
const UndefinedObject& Value::undefined_object() const { return static_cast<const UndefinedObject&>(*object_); }
DynamicObject& Value::object() const { return static_cast<DynamicObject&>(*object_); }

Value make_view(const Value& dict, int which) {
  auto object = std::make_shared<DictViewObject>();
  measure(*object, {&dict});
  object->dict = dict;
  object->which = static_cast<DictViewObject::Which>(which);
  Value v;
  v.kind_ = Kind::kDictView;
  v.object_ = std::move(object);
  return v;
}

int64_t RangeObject::size() const {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  const auto span = step > 0 ? static_cast<unsigned __int128>(static_cast<__int128>(stop) - start)
                             : static_cast<unsigned __int128>(static_cast<__int128>(start) - stop);
  const auto stride =
      static_cast<unsigned __int128>(step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step));
  const auto n = (span + stride - 1) / stride;
  return n > INT64_MAX ? INT64_MAX : static_cast<int64_t>(n);
}

const Value* DictObject::find(std::string_view key) const {
  if (items.size() <= kLinear) {
    for (const auto& [k, v] : items)
      if (k.is_string() && k.text() == key) return &v;
    return nullptr;
  }
  const auto [first, last] = index_.equal_range(std::hash<std::string_view>{}(key));
  for (auto it = first; it != last; ++it) {
    const auto& [k, v] = items[it->second];
    if (k.is_string() && k.text() == key) return &v;
  }
  return nullptr;
}

int64_t DictObject::index_of(const Value& key) const {
  const size_t h = hash(key);
  if (items.size() <= kLinear) {
    for (size_t i = 0; i < items.size(); ++i)
      if (equal(items[i].first, key)) return static_cast<int64_t>(i);
    return -1;
  }
  const auto [first, last] = index_.equal_range(h);
  for (auto it = first; it != last; ++it)
    if (equal(items[it->second].first, key)) return it->second;
  return -1;
}

const Value* DictObject::find(const Value& key) const {
  if (key.is_string()) return find(std::string_view(key.text()));
  const int64_t i = index_of(key);
  return i < 0 ? nullptr : &items[static_cast<size_t>(i)].second;
}

void DictObject::set(const Value& key, Value value) {
  const int64_t i = index_of(key);
  if (i >= 0) {
    items[static_cast<size_t>(i)].second = std::move(value);
    return;
  }
  items.emplace_back(key, std::move(value));
  if (items.size() == kLinear + 1) {
    for (size_t k = 0; k < items.size(); ++k) index_.emplace(hash(items[k].first), static_cast<uint32_t>(k));
  } else if (items.size() > kLinear) {
    index_.emplace(hash(key), static_cast<uint32_t>(items.size() - 1));
  }
}

void DictObject::erase(std::string_view key) {
  std::vector<std::pair<Value, Value>> kept;
  for (auto& entry : items)
    if (!entry.first.is_string() || entry.first.text() != key) kept.push_back(std::move(entry));
  items.clear();
  index_.clear();
  for (auto& [k, v] : kept) set(k, std::move(v));
}

bool DynamicObject::attribute(Interpreter&, std::string_view, Value&) { return false; }
Value DynamicObject::call(Interpreter&, CallArgs&) {
  throw_type_error(fmt::format("'{}' object is not callable", type_name()));
}
int64_t DynamicObject::length(Interpreter&) {
  throw_type_error(fmt::format("object of type '{}' has no len()", type_name()));
}

Value make_callable(std::string name, std::function<Value(Interpreter&, CallArgs&)> function, const Value& holds) {
  auto object = std::make_shared<Callable>();
  object->name = std::move(name);
  object->function = std::move(function);
  measure(*object, {&holds});
  return Value::object(std::move(object));
}

const char* type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined: return "Undefined";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInt:
    case Kind::kBigInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kString: return v.is_markup() ? "Markup" : "str";
    case Kind::kList: return "list";
    case Kind::kTuple: return "tuple";
    case Kind::kDict: return "dict";
    case Kind::kDictView:
      return v.view().which == DictViewObject::kKeys     ? "dict_keys"
             : v.view().which == DictViewObject::kValues ? "dict_values"
                                                         : "dict_items";
    case Kind::kRange: return "range";
    case Kind::kNamespace: return "Namespace";
    case Kind::kIterator: return "generator";
    case Kind::kObject: return v.object().type_name();
  }
  return "object";
}

bool truth(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool: return v.as_bool();
    case Kind::kInt: return v.as_int() != 0;
    case Kind::kFloat: return v.as_real() != 0;
    case Kind::kString: return !v.text().empty();
    case Kind::kList:
    case Kind::kTuple: return !v.items().empty();
    case Kind::kDict: return !v.dict().items.empty();
    case Kind::kDictView: return !v.view().dict.dict().items.empty();
    case Kind::kRange: return v.range().size() > 0;
    case Kind::kBigInt:
    case Kind::kNamespace:
    case Kind::kIterator:
    case Kind::kObject: return true;
  }
  return true;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::kBigInt) || b.is(Kind::kBigInt)) {
      if (a.kind() == b.kind()) return a.text() == b.text();
      return (a.is(Kind::kFloat) || b.is(Kind::kFloat)) && a.to_real() == b.to_real();
    }
    if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
    return a.to_real() == b.to_real();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return true;
    case Kind::kString: return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple: {
      if (a.handle() == b.handle()) return true;
      const auto &x = a.items(), &y = b.items();
      if (x.size() != y.size()) return false;
      for (size_t i = 0; i < x.size(); ++i)
        if (!equal(x[i], y[i])) return false;
      return true;
    }
    case Kind::kDict: {
      if (a.handle() == b.handle()) return true;
      const auto &x = a.dict().items, &y = b.dict().items;
      if (x.size() != y.size()) return false;
      for (const auto& [key, value] : x) {
        const Value* other = b.dict().find(key);
        if (other == nullptr || !equal(value, *other)) return false;
      }
      return true;
    }
    case Kind::kRange: {
      const RangeObject &x = a.range(), &y = b.range();
      const int64_t n = x.size();
      return n == y.size() && (n == 0 || (x.start == y.start && (n == 1 || x.step == y.step)));
    }
    default: return a.handle() == b.handle();
  }
}

int compare(const Value& a, const Value& b, const char* op) {
  if (a.is_undefined()) throw_undefined(a);
  if (b.is_undefined()) throw_undefined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int();
    const double x = a.to_real(), y = b.to_real();
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
  }
  if (a.is_string() && b.is_string()) {
    const int c = a.text().compare(b.text());  // UTF-8 order is code point order
    return c < 0 ? -1 : c > 0;
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < x.size() && i < y.size(); ++i)
      if (!equal(x[i], y[i])) return compare(x[i], y[i], op);
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  throw_type_error(
      fmt::format("'{}' not supported between instances of '{}' and '{}'", op, type_name(a), type_name(b)));
}

size_t hash(const Value& v) {
  switch (v.kind()) {
    case Kind::kString: return std::hash<std::string_view>{}(v.text());
    case Kind::kBool:
    case Kind::kInt: return std::hash<int64_t>{}(v.as_int());
    case Kind::kFloat: {
      const double d = v.as_real();
      if (d == std::floor(d) && std::abs(d) < 9e18) return std::hash<int64_t>{}(static_cast<int64_t>(d));
      return std::hash<double>{}(d);
    }
    case Kind::kBigInt: return std::hash<double>{}(v.to_real());
    case Kind::kNone: return 0x9e3779b9;
    case Kind::kUndefined: return 0x51ed27;
    case Kind::kTuple: {
      size_t h = 0x345678;
      for (const Value& item : v.items()) h = h * 1000003 ^ hash(item);
      return h;
    }
    case Kind::kRange: return std::hash<int64_t>{}(v.range().size());
    case Kind::kList:
    case Kind::kDict:
    case Kind::kDictView: throw_type_error(fmt::format("unhashable type: '{}'", type_name(v)));
    default: return std::hash<const void*>{}(v.handle().get());
  }
}

bool has_length(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kDictView:
    case Kind::kRange: return true;
    case Kind::kObject: return v.object().has_length();
    default: return false;
  }
}

int64_t length(Interpreter& in, const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined: return 0;
    case Kind::kString: return v.string_object().n_chars;
    case Kind::kList:
    case Kind::kTuple: return static_cast<int64_t>(v.items().size());
    case Kind::kDict: return static_cast<int64_t>(v.dict().items.size());
    case Kind::kDictView: return static_cast<int64_t>(v.view().dict.dict().items.size());
    case Kind::kRange: return v.range().size();
    case Kind::kObject: return v.object().length(in);
    default: throw_type_error(fmt::format("object of type '{}' has no len()", type_name(v)));
  }
}

bool is_iterable(const Value& v) { return has_length(v) || v.is(Kind::kIterator); }

std::function<bool(Value&)> make_iterator(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined: return [](Value&) { return false; };
    case Kind::kString:
      return [v, position = size_t{0}](Value& out) mutable {
        const std::string& text = v.text();
        if (position >= text.size()) return false;
        const size_t n = unicode::sequence_length(text, position);
        out = Value::string(text.substr(position, n));  // of Markup too
        position += n;
        return true;
      };
    case Kind::kList:
    case Kind::kTuple:
      return [v, i = size_t{0}](Value& out) mutable {
        if (i >= v.items().size()) return false;
        out = v.items()[i++];
        return true;
      };
    case Kind::kDict:
      return [v, i = size_t{0}](Value& out) mutable {
        if (i >= v.dict().items.size()) return false;
        out = v.dict().items[i++].first;
        return true;
      };
    case Kind::kDictView:
      return [v, i = size_t{0}](Value& out) mutable {
        const auto& items = v.view().dict.dict().items;
        if (i >= items.size()) return false;
        const auto& [key, value] = items[i++];
        switch (v.view().which) {
          case DictViewObject::kKeys: out = key; break;
          case DictViewObject::kValues: out = value; break;
          case DictViewObject::kItems: out = Value::tuple({key, value}); break;
        }
        return true;
      };
    case Kind::kRange:
      return [r = v.range(), n = v.range().size(), i = int64_t{0}](Value& out) mutable {
        if (i >= n) return false;
        out = Value::integer(r.at(i++));
        return true;
      };
    case Kind::kIterator: return [v](Value& out) { return v.iterator().next(out); };
    default: throw_type_error(fmt::format("'{}' object is not iterable", type_name(v)));
  }
}

void iterate(const Value& v, const std::function<bool(const Value&)>& each) {
  if (v.is_sequence()) {
    for (const Value& item : v.items())
      if (!each(item)) return;
    return;
  }
  const auto next = make_iterator(v);
  Value item;
  while (next(item))
    if (!each(item)) return;
}

std::vector<Value> to_vector(Interpreter& in, const Value& v) {
  if (v.is_sequence()) {
    in.charge(v.items().size());
    return v.items();
  }
  std::vector<Value> out;
  iterate(v, [&](const Value& item) {
    in.charge(1);
    out.push_back(item);
    return true;
  });
  return out;
}

}  // namespace pmetal::text::jinja
