#include "text/template/methods.h"

#include <cmath>

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/interpreter.h"
#include "text/template/operators.h"
#include "text/template/repr.h"

namespace pmetal::text::jinja {
namespace {

struct Entry {
  const char* name;
  MethodFunction function;
};

template <size_t n>
MethodFunction find(const Entry (&table)[n], std::string_view name) {
  for (const Entry& entry : table)
    if (name == entry.name) return entry.function;
  return nullptr;
}

void none(const char* name, CallArgs& args) { Bound(name, args, {}); }

Value dict_get(Interpreter&, const Value& self, CallArgs& args) {
  const Bound bound("get", args, {"", ""}, 1);
  const Value* v = self.dict().find(bound[0]);
  return v ? *v : bound.get(1, Value());
}
Value dict_items(Interpreter&, const Value& self, CallArgs& args) {
  none("items", args);
  return make_view(self, DictViewObject::kItems);
}
Value dict_keys(Interpreter&, const Value& self, CallArgs& args) {
  none("keys", args);
  return make_view(self, DictViewObject::kKeys);
}
Value dict_values(Interpreter&, const Value& self, CallArgs& args) {
  none("values", args);
  return make_view(self, DictViewObject::kValues);
}
Value dict_copy(Interpreter&, const Value& self, CallArgs& args) {
  none("copy", args);
  return self;
}
Value dict_fromkeys(Interpreter& in, const Value&, CallArgs& args) {
  const Bound bound("fromkeys", args, {"", ""}, 1);
  auto dict = std::make_shared<DictObject>();
  for (const Value& key : to_vector(in, bound[0])) dict->set(key, bound.get(1, Value()));
  return Value::dict(std::move(dict));
}
constexpr Entry kDictMethods[] = {{"get", dict_get},       {"items", dict_items}, {"keys", dict_keys},
                                  {"values", dict_values}, {"copy", dict_copy},   {"fromkeys", dict_fromkeys}};

Value sequence_count(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("count", args, {""}, 1);
  int64_t n = 0;
  iterate(self, [&](const Value& v) {
    in.charge(static_cast<size_t>(std::min(v.weight(), bound[0].weight())));
    n += equal(v, bound[0]);
    return true;
  });
  return Value::integer(n);
}
Value sequence_index(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("index", args, {"", "", ""}, 1);
  const int64_t n = length(in, self);
  const auto clamp = [&](int64_t i) { return std::min(std::max<int64_t>(i < 0 ? i + n : i, 0), n); };
  const int64_t begin = clamp(bound.integer(1, 0)), end = clamp(bound.integer(2, n));
  for (int64_t i = begin; i < end; ++i) {
    const Value v = *index(in, self, i);
    in.charge(static_cast<size_t>(std::min(v.weight(), bound[0].weight())));
    if (equal(v, bound[0])) return Value::integer(i);
  }
  fail(ErrorCode::kInvalidInput, "{} is not in {}", in.to_repr(bound[0]), type_name(self));
}
Value list_copy(Interpreter&, const Value& self, CallArgs& args) {
  none("copy", args);
  return self;
}
constexpr Entry kListMethods[] = {{"count", sequence_count}, {"index", sequence_index}, {"copy", list_copy}};
constexpr Entry kTupleMethods[] = {{"count", sequence_count}, {"index", sequence_index}};

Value int_bit_length(Interpreter&, const Value& self, CallArgs& args) {
  none("bit_length", args);
  const int64_t i = self.as_int();
  uint64_t magnitude = i < 0 ? 0 - static_cast<uint64_t>(i) : static_cast<uint64_t>(i);
  int64_t bits = 0;
  for (; magnitude > 0; magnitude >>= 1) ++bits;
  return Value::integer(bits);
}
Value number_self(Interpreter&, const Value& self, CallArgs& args) {
  none("conjugate", args);
  return self;
}
constexpr Entry kIntMethods[] = {{"bit_length", int_bit_length}, {"conjugate", number_self}};

Value float_is_integer(Interpreter&, const Value& self, CallArgs& args) {
  none("is_integer", args);
  const double d = self.as_real();
  return Value::boolean(std::isfinite(d) && d == std::floor(d));
}
constexpr Entry kFloatMethods[] = {{"is_integer", float_is_integer}, {"conjugate", number_self}};

}  // namespace

MethodFunction find_method(const Value& object, std::string_view name) {
  switch (object.kind()) {
    case Kind::kString: return find_string_method(name);
    case Kind::kDict: return find(kDictMethods, name);
    case Kind::kList: return find(kListMethods, name);
    case Kind::kTuple: return object.is_group() && name == "list" ? nullptr : find(kTupleMethods, name);
    case Kind::kRange: return find(kTupleMethods, name);
    case Kind::kInt:
    case Kind::kBool: return find(kIntMethods, name);
    case Kind::kFloat: return find(kFloatMethods, name);
    default: return nullptr;
  }
}

bool is_mutating_method(const Value& object, std::string_view name) {
  if (object.is(Kind::kList))
    for (const char* method : {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"})
      if (name == method) return true;
  if (object.is(Kind::kDict))
    for (const char* method : {"clear", "pop", "popitem", "setdefault", "update"})
      if (name == method) return true;
  return false;
}

}  // namespace pmetal::text::jinja
