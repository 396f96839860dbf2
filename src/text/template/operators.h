// Python's arithmetic, membership, indexing and slicing on values.
#pragma once

#include <optional>

#include "text/template/ast.h"
#include "text/template/value.h"

namespace pmetal::text::jinja {

Value binary(Interpreter& in, Op op, const Value& a, const Value& b);
Value negate(const Value& v);
Value plus(const Value& v);
bool contains(Interpreter& in, const Value& container, const Value& item);  // item in container
// sequence[start:stop:step]; absent bounds are None
Value slice(Interpreter& in, const Value& v, const Value& start, const Value& stop, const Value& step);
std::optional<Value> index(Interpreter& in, const Value& v, int64_t i);  // nullopt when out of range

int64_t floor_divide(int64_t a, int64_t b);
int64_t floor_modulo(int64_t a, int64_t b);

}  // namespace pmetal::text::jinja
