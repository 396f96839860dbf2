// Matches call arguments with a parameter list, as Python does for a function with these parameters.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "text/template/value.h"

namespace pmetal::text::jinja {

class Bound {
 public:
  // `parameters`: names in order, the first n_required without default; "" names one that is given by position only.
  // Throws TypeError texts naming `function`.
  Bound(const char* function, CallArgs& args, std::initializer_list<const char*> parameters, size_t n_required = 0);

  bool has(size_t i) const { return values_[i].has_value(); }
  const Value& operator[](size_t i) const { return *values_[i]; }
  Value get(size_t i, Value fallback) const {
    if (has(i)) return *values_[i];
    return fallback;
  }
  // typed, with the message Python gives for a wrong type
  int64_t integer(size_t i, int64_t fallback) const;
  bool boolean(size_t i, bool fallback) const;             // by truth
  std::string text(size_t i, const char* fallback) const;  // must be a str

 private:
  const char* function_;
  std::vector<std::optional<Value>> values_;
};

void refuse_arguments(const char* function, CallArgs& args);  // of a function that takes none

int64_t to_index(const Value& v);  // an int (or bool) as Python's __index__; TypeError otherwise

}  // namespace pmetal::text::jinja
