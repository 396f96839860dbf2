#include "text/template/tests.h"

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/operators.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

void no_arguments(const char* name, CallArgs& args) { Bound(name, args, {}); }

// the remainder of v / n compared with r
bool has_remainder(Interpreter& in, const Value& v, const Value& n, int64_t r) {
  return equal(binary(in, Op::kMod, v, n), Value::integer(r));
}

bool test_odd(Interpreter& in, const Value& v, CallArgs& args) {
  no_arguments("odd", args);
  return has_remainder(in, v, Value::integer(2), 1);
}
bool test_even(Interpreter& in, const Value& v, CallArgs& args) {
  no_arguments("even", args);
  return has_remainder(in, v, Value::integer(2), 0);
}
bool test_divisibleby(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("divisibleby", args, {"num"}, 1);
  return has_remainder(in, v, bound[0], 0);
}

bool test_in(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("in", args, {"seq"}, 1);
  return contains(in, bound[0], v);
}

bool test_sameas(Interpreter&, const Value& v, CallArgs& args) {
  const Bound bound("sameas", args, {"other"}, 1);
  const Value& other = bound[0];
  if (v.kind() != other.kind()) return false;
  if (v.is_string() || v.is(Kind::kInt) || v.is(Kind::kBool)) return equal(v, other);  // interned, as a rule
  return v.handle() == other.handle() && (v.handle() != nullptr || equal(v, other));
}

bool test_filter(Interpreter&, const Value& v, CallArgs& args) {
  no_arguments("filter", args);
  (void)hash(v);
  return v.is_string() && find_filter(v.text()) != nullptr;
}
bool test_test(Interpreter&, const Value& v, CallArgs& args) {
  no_arguments("test", args);
  (void)hash(v);
  return v.is_string() && find_test(v.text()) != nullptr;
}

// at least one cased character and none that `refused` names
bool all_cased(Interpreter& in, const Value& v, bool (*wanted)(char32_t), bool (*refused)(char32_t)) {
  const std::string text = in.to_text(v);
  bool any = false;
  for (size_t i = 0; i < text.size(); i += unicode::sequence_length(text, i)) {
    const char32_t c = unicode::decode(text, i);
    if (refused(c) || unicode::is_title(c)) return false;
    any |= wanted(c);
  }
  return any;
}
bool test_lower(Interpreter& in, const Value& v, CallArgs& args) {
  no_arguments("lower", args);
  return all_cased(in, v, unicode::is_lower, unicode::is_upper);
}
bool test_upper(Interpreter& in, const Value& v, CallArgs& args) {
  no_arguments("upper", args);
  return all_cased(in, v, unicode::is_upper, unicode::is_lower);
}

template <bool (*predicate)(const Value&)>
bool plain(Interpreter&, const Value& v, CallArgs& args) {
  no_arguments("test", args);
  return predicate(v);
}

bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_true(const Value& v) { return v.is(Kind::kBool) && v.as_bool(); }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.as_bool(); }
bool is_integer(const Value& v) { return v.is(Kind::kInt) || v.is(Kind::kBigInt); }
bool is_float(const Value& v) { return v.is(Kind::kFloat); }
bool is_string(const Value& v) { return v.is_string(); }
bool is_mapping(const Value& v) { return v.is(Kind::kDict); }
bool is_number(const Value& v) { return v.is_number(); }
// len() works and there is __getitem__
bool is_sequence(const Value& v) {
  return v.is_string() || v.is_sequence() || v.is(Kind::kDict) || v.is(Kind::kRange) || v.is_undefined();
}
bool is_callable(const Value& v) { return v.is_undefined() || (v.is(Kind::kObject) && v.object().is_callable()); }
bool is_escaped(const Value& v) { return v.is_markup(); }
bool is_iterable_value(const Value& v) { return is_iterable(v); }

enum class Comparison { kEq, kNe, kLt, kLe, kGt, kGe };
template <Comparison comparison>
bool compared(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("comparison", args, {""}, 1);
  const Value& other = bound[0];
  in.charge(static_cast<size_t>(std::min(v.weight(), other.weight())));
  switch (comparison) {
    case Comparison::kEq: return equal(v, other);
    case Comparison::kNe: return !equal(v, other);
    case Comparison::kLt: return compare(v, other, "<") == -1;
    case Comparison::kLe: return compare(v, other, "<=") <= 0;
    case Comparison::kGt: return compare(v, other, ">") == 1;
    default: {
      const int c = compare(v, other, ">=");
      return c == 0 || c == 1;
    }
  }
}

struct Entry {
  const char* name;
  TestFunction function;
};
constexpr Entry kTests[] = {
    {"odd", test_odd},
    {"even", test_even},
    {"divisibleby", test_divisibleby},
    {"defined", plain<is_defined>},
    {"undefined", plain<is_undefined>},
    {"filter", test_filter},
    {"test", test_test},
    {"none", plain<is_none>},
    {"boolean", plain<is_boolean>},
    {"false", plain<is_false>},
    {"true", plain<is_true>},
    {"integer", plain<is_integer>},
    {"float", plain<is_float>},
    {"lower", test_lower},
    {"upper", test_upper},
    {"string", plain<is_string>},
    {"mapping", plain<is_mapping>},
    {"number", plain<is_number>},
    {"sequence", plain<is_sequence>},
    {"iterable", plain<is_iterable_value>},
    {"callable", plain<is_callable>},
    {"sameas", test_sameas},
    {"escaped", plain<is_escaped>},
    {"in", test_in},
    {"==", compared<Comparison::kEq>},
    {"eq", compared<Comparison::kEq>},
    {"equalto", compared<Comparison::kEq>},
    {"!=", compared<Comparison::kNe>},
    {"ne", compared<Comparison::kNe>},
    {">", compared<Comparison::kGt>},
    {"gt", compared<Comparison::kGt>},
    {"greaterthan", compared<Comparison::kGt>},
    {">=", compared<Comparison::kGe>},
    {"ge", compared<Comparison::kGe>},
    {"<", compared<Comparison::kLt>},
    {"lt", compared<Comparison::kLt>},
    {"lessthan", compared<Comparison::kLt>},
    {"<=", compared<Comparison::kLe>},
    {"le", compared<Comparison::kLe>},
};

}  // namespace

TestFunction find_test(std::string_view name) {
  for (const Entry& entry : kTests)
    if (name == entry.name) return entry.function;
  return nullptr;
}

}  // namespace pmetal::text::jinja
