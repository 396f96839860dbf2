// Walks a ParsedTemplate. One Interpreter lives for one rendering; it holds scopes, budgets and the output.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/template/ast.h"
#include "text/template/template.h"

namespace pmetal::text::jinja {

// Variables of one frame: the template, a loop iteration, a macro call, a with block … A name is looked up from the
// innermost frame outwards and then among the template's variables.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> variables;
  bool is_captured = false;  // a macro or recursive loop refers to it: kept until the rendering ends
};

class Interpreter {
 public:
  Interpreter(const ParsedTemplate& parsed, const Value& context, const RenderOptions& options);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;

  Rendered render();
  int line() const { return line_; }
  const RenderOptions& options() const { return options_; }

  // budgets; throw when one is used up
  void charge(size_t steps);
  void charge_bytes(size_t bytes);
  void charge_walk(const Value& v) { charge(static_cast<size_t>(v.weight())); }
  Value make_string(std::string text, bool is_markup = false);  // a string that the template built, charged

  std::string to_text(const Value& v);  // str(v)
  std::string to_repr(const Value& v);  // repr(v)

  // env.getattr / env.getitem of the sandbox: never throw for what is absent, give Undefined
  Value get_attribute(const Value& object, const Value& name);
  Value get_item(const Value& object, const Value& key);
  Value call(const Value& callee, CallArgs& args);
  Value call_filter(const std::string& name, const Value& input, CallArgs& args);
  bool call_test(const std::string& name, const Value& input, CallArgs& args);

  Value register_namespace(std::shared_ptr<DictObject> attributes);
  bool autoescape() const { return autoescape_; }

  // for macros and loops
  std::string run_body(const std::vector<NodePtr>& body, Scope& scope);  // what it writes
  Value evaluate(const Node& node, Scope& scope);
  std::string run_recursive_loop(const Node& node, const Value& iterable, Scope& scope, int depth);
  struct ScopeGuard;
  const ParsedTemplate& parsed() const { return parsed_; }
  int macro_depth = 0;

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  Flow run(const std::vector<NodePtr>& body, Scope& scope);
  Flow run(const Node& node, Scope& scope);
  void run_for(const Node& node, const Value& iterable, Scope& scope, int depth);
  void run_call_block(const Node& node, Scope& scope);
  void run_generation(const Node& node, Scope& scope);
  std::vector<Span> generation_spans() const;
  void assign(const Node& target, const Value& value, Scope& scope);
  void write(const Value& v);
  void write(std::string_view text);

  Value evaluate_call(const Node& node, Scope& scope, const Value* caller);
  Value evaluate_filter(const Node& node, Scope& scope, const Value* input);
  bool evaluate_test(const Node& node, Scope& scope);
  Value evaluate_compare(const Node& node, Scope& scope);
  Value evaluate_slice(const Value& object, const Node& slice, Scope& scope);
  void evaluate_arguments(const Arguments* arguments, Scope& scope, CallArgs& out);
  Value lookup(int symbol, const Value& name, const Scope& scope) const;
  void check_stack() const;

  Scope* enter(Scope* parent);
  void leave(Scope* scope);
  static void capture(Scope* scope);

  const ParsedTemplate& parsed_;
  const RenderOptions& options_;
  std::vector<Value> globals_;  // per symbol
  std::vector<bool> has_global_;
  std::vector<std::unique_ptr<Scope>> scopes_;
  std::vector<Scope*> free_scopes_;
  std::vector<std::shared_ptr<DictObject>> namespaces_;
  Scope* root_ = nullptr;
  std::string output_;
  std::string* out_ = &output_;
  struct Generation {
    Span span;             // in output_
    std::string captured;  // its text, where it is not written to output_ at once
  };
  std::vector<Generation> generation_;
  int64_t steps_left_, bytes_left_;
  const char* stack_start_ = nullptr;
  int line_ = 1;
  bool autoescape_ = false;
};

struct Interpreter::ScopeGuard {
  ScopeGuard(Interpreter& in, Scope* parent) : interpreter(in), scope(in.enter(parent)) {}
  ~ScopeGuard() { interpreter.leave(scope); }
  ScopeGuard(const ScopeGuard&) = delete;
  Interpreter& interpreter;
  Scope* scope;
};

// The attributes that the reference's undefined values have as Python objects (__class__ and its like): none of them is
// safe, and asking for one is not yet an error.
bool is_attribute_of_undefined(const std::string& name);

}  // namespace pmetal::text::jinja
