// Attribute and item access of the sandbox, filters and tests called by name.
#include <optional>

#include "base/error.h"
#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/methods.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/tests.h"

namespace pmetal::text::jinja {
namespace {

Value unsafe(const Value& object, const std::string& name) {
  return Value::undefined(
      fmt::format("access to attribute {} of '{}' object is unsafe.", repr_string(name), type_name(object)));
}

// a real Python attribute of the value, wrapped by the sandbox's rules
std::optional<Value> attribute(Interpreter& in, const Value& object, const std::string& name) {
  if (name.starts_with("__") && name.ends_with("__") && name.size() > 4) return unsafe(object, name);
  if (is_mutating_method(object, name)) return unsafe(object, name);
  if (const MethodFunction method = find_method(object, name))
    return make_callable(
        name, [object, method](Interpreter& i, CallArgs& args) { return method(i, object, args); }, object);
  if (object.is(Kind::kNamespace)) {
    if (const Value* v = object.dict().find(name)) return name[0] == '_' ? unsafe(object, name) : *v;
    return std::nullopt;
  }
  if (object.is(Kind::kTuple) && object.is_group()) {
    if (name == "grouper") return object.items()[0];
    if (name == "list") return object.items()[1];
  }
  if (object.is(Kind::kRange)) {
    if (name == "start") return Value::integer(object.range().start);
    if (name == "stop") return Value::integer(object.range().stop);
    if (name == "step") return Value::integer(object.range().step);
  }
  if (object.is_integral()) {
    if (name == "real" || name == "numerator") return Value::integer(object.as_int());
    if (name == "imag") return Value::integer(0);
    if (name == "denominator") return Value::integer(1);
  }
  if (object.is(Kind::kFloat)) {
    if (name == "real") return object;
    if (name == "imag") return Value::real(0);
  }
  if (object.is(Kind::kObject)) {
    Value v;
    if (object.object().attribute(in, name, v)) return v;
  }
  return std::nullopt;
}

// object[key] where Python would not raise TypeError or LookupError
std::optional<Value> item(Interpreter& in, const Value& object, const Value& key) {
  switch (object.kind()) {
    case Kind::kDict: {
      if (key.is_sequence() || key.is(Kind::kDict) || key.is(Kind::kDictView)) {
        if (!key.is(Kind::kTuple)) return std::nullopt;  // unhashable
      }
      const Value* v = object.dict().find(key);
      return v ? std::optional<Value>(*v) : std::nullopt;
    }
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange: return key.is_integral() ? index(in, object, key.as_int()) : std::nullopt;
    default: return std::nullopt;
  }
}

}  // namespace

bool is_attribute_of_undefined(const std::string& name) {
  static constexpr std::string_view kNames =
      " __add__ __aiter__ __bool__ __call__ __class__ __complex__ __delattr__ __dir__ __div__ __doc__ "
      "__eq__ __float__ __floordiv__ __format__ __ge__ __getattr__ __getattribute__ __getitem__ "
      "__getstate__ __gt__ __hash__ __init__ __init_subclass__ __int__ __iter__ __le__ __len__ __lt__ "
      "__mod__ __module__ __mul__ __ne__ __neg__ __new__ __pos__ __pow__ __radd__ __rdiv__ __reduce__ "
      "__reduce_ex__ __repr__ __rfloordiv__ __rmod__ __rmul__ __rpow__ __rsub__ __rtruediv__ __setattr__ "
      "__sizeof__ __str__ __sub__ __subclasshook__ __truediv__ _fail_with_undefined_error "
      "_undefined_exception _undefined_hint _undefined_message _undefined_name _undefined_obj ";
  return kNames.find(" " + name + " ") != std::string_view::npos;
}

Value Interpreter::get_attribute(const Value& object, const Value& name) {
  if (object.is_undefined()) {
    if (is_attribute_of_undefined(name.text())) return unsafe(object, name.text());
    throw_undefined(object);
  }
  if (object.is(Kind::kDict) && find_method(object, name.text()) == nullptr) {
    if (const Value* v = object.dict().find(name.text()); v && !is_mutating_method(object, name.text())) return *v;
  }
  if (auto v = attribute(*this, object, name.text())) return *std::move(v);
  if (auto v = item(*this, object, name)) return *std::move(v);
  return Value::undefined_attribute(object, name);
}

Value Interpreter::get_item(const Value& object, const Value& key) {
  if (object.is_undefined()) throw_undefined(object);
  if (auto v = item(*this, object, key)) return *std::move(v);
  if (key.is_string())
    if (auto v = attribute(*this, object, key.text())) return *std::move(v);
  return Value::undefined_attribute(object, key);
}

Value Interpreter::call_filter(const std::string& name, const Value& input, CallArgs& args) {
  const FilterFunction filter = find_filter(name);
  if (!filter) fail(ErrorCode::kInvalidInput, "No filter named '{}'.", name);
  charge(1);
  return filter(*this, input, args);
}

bool Interpreter::call_test(const std::string& name, const Value& input, CallArgs& args) {
  const TestFunction test = find_test(name);
  if (!test) fail(ErrorCode::kInvalidInput, "No test named '{}'.", name);
  charge(1);
  return test(*this, input, args);
}

}  // namespace pmetal::text::jinja
