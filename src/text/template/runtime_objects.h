// The callables and helper objects that live during one rendering: macros, loop, cycler, joiner.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "text/template/ast.h"
#include "text/template/value.h"

namespace pmetal::text::jinja {

struct Scope;

// the macro or call block `node` with `scope` (captured by the caller) as its surroundings
Value make_macro(const Node& node, Scope& scope, const Value& name);

// the `loop` variable; also the iterator that drives the loop
class LoopObject : public DynamicObject, public std::enable_shared_from_this<LoopObject> {
 public:
  LoopObject(const Value& iterable, const Node& node, Scope& scope, int depth0);
  bool advance(Value& item);
  void finish();  // the loop is over: lets go of its values

  const char* type_name() const override { return "LoopContext"; }
  std::string repr() const override { return "<LoopContext>"; }
  bool attribute(Interpreter& in, std::string_view name, Value& out) override;
  bool is_callable() const override { return true; }
  Value call(Interpreter& in, CallArgs& args) override;  // recursion
  bool has_length() const override { return true; }
  int64_t length(Interpreter& in) override;

 private:
  bool peek();

  Value iterable_;
  std::function<bool(Value&)> next_;
  const Node& node_;
  Scope& scope_;
  int depth0_;
  int64_t index0_ = -1;
  int64_t length_ = -1;
  std::optional<Value> after_, current_, before_, changed_;
  bool is_exhausted_ = false;
};

Value make_cycler(std::vector<Value> items);
Value make_joiner(std::string separator);

}  // namespace pmetal::text::jinja
