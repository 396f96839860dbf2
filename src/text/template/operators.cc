#include "text/template/operators.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/format.h"
#include "text/template/interpreter.h"
#include "text/template/markup.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

const char* symbol(Op op) {
  switch (op) {
    case Op::kAdd: return "+";
    case Op::kSub: return "-";
    case Op::kMul: return "*";
    case Op::kDiv: return "/";
    case Op::kFloorDiv: return "//";
    case Op::kMod: return "%";
    default: return "** or pow()";
  }
}

[[noreturn]] void unsupported(Op op, const Value& a, const Value& b) {
  if (op == Op::kAdd && a.is_string())
    throw_type_error(fmt::format("can only concatenate str (not \"{}\") to str", type_name(b)));
  if (op == Op::kAdd && a.is_sequence())
    throw_type_error(
        fmt::format("can only concatenate {} (not \"{}\") to {}", type_name(a), type_name(b), type_name(a)));
  throw_type_error(
      fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op), type_name(a), type_name(b)));
}

[[noreturn]] void overflow() {
  fail(ErrorCode::kInvalidInput,
       "the integer result does not fit in 64 bits, the most that templates may compute with");
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) fail(ErrorCode::kInvalidInput, "0.0 cannot be raised to a negative power");
    return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return Value::integer(result);
}

Value integers(Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case Op::kSub:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case Op::kDiv:
      if (b == 0) fail(ErrorCode::kInvalidInput, "division by zero");
      return Value::real(static_cast<double>(a) / static_cast<double>(b));
    case Op::kFloorDiv:
      if (b == 0) fail(ErrorCode::kInvalidInput, "integer division or modulo by zero");
      if (a == INT64_MIN && b == -1) overflow();
      return Value::integer(floor_divide(a, b));
    case Op::kMod:
      if (b == 0) fail(ErrorCode::kInvalidInput, "integer modulo by zero");
      return Value::integer(b == -1 ? 0 : floor_modulo(a, b));
    default: return integer_power(a, b);
  }
}

double float_modulo(double a, double b) {
  double r = std::fmod(a, b);
  if (r != 0) {
    if ((b < 0) != (r < 0)) r += b;
  } else {
    r = std::copysign(0.0, b);
  }
  return r;
}

double float_floor_divide(double a, double b) {
  const double quotient = (a - float_modulo(a, b)) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return floored;
}

Value reals(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd: return Value::real(a + b);
    case Op::kSub: return Value::real(a - b);
    case Op::kMul: return Value::real(a * b);
    case Op::kDiv:
      if (b == 0) fail(ErrorCode::kInvalidInput, "float division by zero");
      return Value::real(a / b);
    case Op::kFloorDiv:
      if (b == 0) fail(ErrorCode::kInvalidInput, "float floor division by zero");
      return Value::real(float_floor_divide(a, b));
    case Op::kMod:
      if (b == 0) fail(ErrorCode::kInvalidInput, "float modulo");
      return Value::real(float_modulo(a, b));
    default: {
      if (a == 0 && b < 0) fail(ErrorCode::kInvalidInput, "0.0 cannot be raised to a negative power");
      if (a < 0 && b != std::floor(b)) fail(ErrorCode::kInvalidInput, "complex results are not supported");
      const double r = std::pow(a, b);
      if (std::isinf(r) && !std::isinf(a) && !std::isinf(b)) fail(ErrorCode::kInvalidInput, "the result is too large");
      return Value::real(r);
    }
  }
}

Value repeat(Interpreter& in, const Value& v, int64_t n) {
  n = std::max<int64_t>(n, 0);
  if (v.is_string()) {
    const auto size = static_cast<unsigned __int128>(v.text().size()) * static_cast<unsigned __int128>(n);
    in.charge_bytes(size > INT64_MAX ? SIZE_MAX / 2 : static_cast<size_t>(size));
    std::string out;
    out.reserve(static_cast<size_t>(size));
    for (int64_t i = 0; i < n && !v.text().empty(); ++i) out += v.text();
    return Value::string(std::move(out), v.is_markup());
  }
  const auto size = static_cast<unsigned __int128>(v.items().size()) * static_cast<unsigned __int128>(n);
  in.charge(size > INT64_MAX ? SIZE_MAX / 2 : static_cast<size_t>(size));
  std::vector<Value> items;
  for (int64_t i = 0; i < n && !v.items().empty(); ++i) items.insert(items.end(), v.items().begin(), v.items().end());
  return v.is(Kind::kList) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

Value concatenate(Interpreter& in, const Value& a, const Value& b) {
  if (a.is_string()) {
    if (a.is_markup() != b.is_markup())
      return in.make_string(
          (a.is_markup() ? a.text() : escape_html(a.text())) + (b.is_markup() ? b.text() : escape_html(b.text())),
          true);
    return in.make_string(a.text() + b.text(), a.is_markup());
  }
  in.charge(a.items().size() + b.items().size());
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is(Kind::kList) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

// start, stop and step of Python's slice.indices(n)
void slice_bounds(const Value& start, const Value& stop, const Value& step, int64_t n, int64_t out[3]) {
  const auto bound = [](const Value& v) {
    if (!v.is_integral()) throw_type_error("slice indices must be integers or None or have an __index__ method");
    return v.as_int();
  };
  const int64_t k = step.is_none() ? 1 : bound(step);
  if (k == 0) fail(ErrorCode::kInvalidInput, "slice step cannot be zero");
  const int64_t low = k < 0 ? -1 : 0, high = k < 0 ? n - 1 : n;
  const auto clamp = [&](const Value& v, int64_t fallback) {
    if (v.is_none()) return fallback;
    int64_t i = bound(v);
    if (i < 0) i = i < -n ? low : i + n;
    return std::min(std::max(i, low), high);
  };
  out[0] = clamp(start, k < 0 ? high : low);
  out[1] = clamp(stop, k < 0 ? low : high);
  out[2] = k;
}

}  // namespace

int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t q = a / b;
  return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}

int64_t floor_modulo(int64_t a, int64_t b) {
  const int64_t r = a % b;
  return r != 0 && ((r < 0) != (b < 0)) ? r + b : r;
}

Value binary(Interpreter& in, Op op, const Value& a, const Value& b) {
  if (op == Op::kMod && a.is_string()) return format_percent(in, a, b);
  if (a.is_undefined()) throw_undefined(a);
  if (b.is_undefined()) throw_undefined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::kFloat) || b.is(Kind::kFloat)) return reals(op, a.to_real(), b.to_real());
    if (a.is(Kind::kBigInt) || b.is(Kind::kBigInt)) overflow();
    return integers(op, a.as_int(), b.as_int());
  }
  if (op == Op::kAdd && a.kind() == b.kind() && (a.is_string() || a.is_sequence())) return concatenate(in, a, b);
  if (op == Op::kMul) {
    if ((a.is_string() || a.is_sequence()) && b.is_integral()) return repeat(in, a, b.as_int());
    if ((b.is_string() || b.is_sequence()) && a.is_integral()) return repeat(in, b, a.as_int());
    if ((a.is_string() || a.is_sequence()) && !b.is(Kind::kBigInt))
      throw_type_error(fmt::format("can't multiply sequence by non-int of type '{}'", type_name(b)));
  }
  unsupported(op, a, b);
}

Value negate(const Value& v) {
  if (v.is_undefined()) throw_undefined(v);
  if (v.is(Kind::kFloat)) return Value::real(-v.as_real());
  if (v.is(Kind::kBigInt)) return Value::big_integer(v.text()[0] == '-' ? v.text().substr(1) : "-" + v.text());
  if (!v.is_integral()) throw_type_error(fmt::format("bad operand type for unary -: '{}'", type_name(v)));
  if (v.as_int() == INT64_MIN) overflow();
  return Value::integer(-v.as_int());
}

Value plus(const Value& v) {
  if (v.is_undefined()) throw_undefined(v);
  if (v.is(Kind::kFloat) || v.is(Kind::kBigInt)) return v;
  if (!v.is_integral()) throw_type_error(fmt::format("bad operand type for unary +: '{}'", type_name(v)));
  return Value::integer(v.as_int());
}

bool contains(Interpreter& in, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString: {
      if (!item.is_string())
        throw_type_error(fmt::format("'in <string>' requires string as left operand, not {}", type_name(item)));
      in.charge(container.text().size() / 64 + 1);
      return item.text().empty() || memmem(container.text().data(), container.text().size(), item.text().data(),
                                           item.text().size()) != nullptr;
    }
    case Kind::kDict: return container.dict().find(item) != nullptr;
    case Kind::kDictView:
      if (container.view().which == DictViewObject::kKeys) return container.view().dict.dict().find(item) != nullptr;
      break;
    case Kind::kRange:
      if (item.is_integral()) {
        const RangeObject& r = container.range();
        if (r.size() == 0) return false;
        const int64_t last = r.at(r.size() - 1), i = item.as_int();
        return i >= std::min(r.start, last) && i <= std::max(r.start, last) &&
               static_cast<__int128>(i - r.start) % r.step == 0;
      }
      break;
    case Kind::kUndefined:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kIterator:
    case Kind::kObject: break;
    default: throw_type_error(fmt::format("argument of type '{}' is not iterable", type_name(container)));
  }
  bool found = false;
  iterate(container, [&](const Value& other) {
    in.charge(static_cast<size_t>(std::min(other.weight(), item.weight())));
    found = equal(other, item) || (other.handle() != nullptr && other.handle() == item.handle());
    return !found;
  });
  return found;
}

std::optional<Value> index(Interpreter& in, const Value& v, int64_t i) {
  const int64_t n = length(in, v);
  if (i < 0) i += n;
  if (i < 0 || i >= n) return std::nullopt;
  if (v.is_sequence()) return v.items()[static_cast<size_t>(i)];
  if (v.is(Kind::kRange)) return Value::integer(v.range().at(i));
  const std::string& text = v.text();
  if (v.string_object().is_ascii()) return Value::string(text.substr(static_cast<size_t>(i), 1), v.is_markup());
  in.charge(text.size() / 64);
  const size_t at = unicode::offset(text, i);
  return Value::string(text.substr(at, unicode::sequence_length(text, at)), v.is_markup());
}

Value slice(Interpreter& in, const Value& v, const Value& start, const Value& stop, const Value& step) {
  if (v.is_undefined()) throw_undefined(v);
  if (!v.is_string() && !v.is_sequence() && !v.is(Kind::kRange)) {
    if (v.is(Kind::kDict)) throw_type_error("unhashable type: 'slice'");
    throw_type_error(fmt::format("'{}' object is not subscriptable", type_name(v)));
  }
  int64_t bounds[3];
  slice_bounds(start, stop, step, length(in, v), bounds);
  const auto [first, last, stride] = bounds;
  if (v.is(Kind::kRange)) {
    const RangeObject& r = v.range();
    return Value::range(r.at(first), r.at(last), r.step * stride);
  }
  if (v.is_sequence()) {
    std::vector<Value> items;
    for (int64_t i = first; stride > 0 ? i < last : i > last; i += stride) {
      in.charge(1);
      items.push_back(v.items()[static_cast<size_t>(i)]);
    }
    return v.is(Kind::kList) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
  }
  const std::string& text = v.text();
  if (stride == 1) {
    if (first >= last) return Value::string("", v.is_markup());
    in.charge(text.size() / 64 + 1);
    if (v.string_object().is_ascii())
      return in.make_string(text.substr(static_cast<size_t>(first), static_cast<size_t>(last - first)), v.is_markup());
    const size_t begin = unicode::offset(text, first);
    const size_t size = unicode::offset(std::string_view(text).substr(begin), last - first);
    return in.make_string(text.substr(begin, size), v.is_markup());
  }
  in.charge(text.size());
  const std::u32string wide = unicode::to_u32(text);
  std::u32string out;
  for (int64_t i = first; stride > 0 ? i < last : i > last; i += stride) {
    out.push_back(wide[static_cast<size_t>(i)]);
    if (stride > 0 ? i > INT64_MAX - stride : i < INT64_MIN - stride) break;
  }
  return in.make_string(unicode::to_utf8(out), v.is_markup());
}

}  // namespace pmetal::text::jinja
