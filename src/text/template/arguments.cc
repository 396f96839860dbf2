#include "text/template/arguments.h"

#include "base/error.h"
#include "text/template/interpreter.h"

namespace pmetal::text::jinja {

Bound::Bound(const char* function, CallArgs& args, std::initializer_list<const char*> parameters, size_t n_required)
    : function_(function), values_(parameters.size()) {
  if (args.positional.size() > parameters.size())
    throw_type_error(
        fmt::format("{}() takes at most {} arguments ({} given)", function, parameters.size(), args.positional.size()));
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = args.positional[i];
  for (const auto& [key, value] : args.keyword) {
    size_t i = 0;
    for (const char* name : parameters) {
      if (key == name && !key.empty()) break;
      ++i;
    }
    if (i == parameters.size())
      throw_type_error(fmt::format("{}() got an unexpected keyword argument '{}'", function, key));
    if (values_[i]) throw_type_error(fmt::format("{}() got multiple values for argument '{}'", function, key));
    values_[i] = value;
  }
  for (size_t i = 0; i < n_required; ++i)
    if (!values_[i])
      throw_type_error(fmt::format("{}() missing required argument {} '{}'", function, i + 1, parameters.begin()[i]));
}

void refuse_arguments(const char* function, CallArgs& args) { [[maybe_unused]] const Bound none(function, args, {}); }

int64_t to_index(const Value& v) {
  if (v.is_undefined()) throw_undefined(v);
  if (v.is(Kind::kBigInt)) fail(ErrorCode::kInvalidInput, "integer {} is too large here", v.text());
  if (!v.is_integral()) throw_type_error(fmt::format("'{}' object cannot be interpreted as an integer", type_name(v)));
  return v.as_int();
}

int64_t Bound::integer(size_t i, int64_t fallback) const { return has(i) ? to_index(*values_[i]) : fallback; }
bool Bound::boolean(size_t i, bool fallback) const { return has(i) ? truth(*values_[i]) : fallback; }

std::string Bound::text(size_t i, const char* fallback) const {
  if (!has(i)) return fallback;
  if (!values_[i]->is_string())
    throw_type_error(fmt::format("{}() argument {} must be str, not {}", function_, i + 1, type_name(*values_[i])));
  return values_[i]->text();
}

}  // namespace pmetal::text::jinja
