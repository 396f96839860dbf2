#include "text/template/interpreter.h"

#include <algorithm>

#include "base/error.h"
#include "text/template/globals.h"
#include "text/template/markup.h"
#include "text/template/methods.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/runtime_objects.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {

Interpreter::Interpreter(const ParsedTemplate& parsed, const Value& context, const RenderOptions& options)
    : parsed_(parsed),
      options_(options),
      globals_(parsed.symbols.size()),
      has_global_(parsed.symbols.size(), false),
      steps_left_(options.limits.steps),
      bytes_left_(options.limits.scratch_bytes) {
  for (size_t i = 0; i < parsed.symbols.size(); ++i) {
    if (const Value* v = context.dict().find(parsed.symbols[i])) {
      globals_[i] = *v;
      has_global_[i] = true;
    } else {
      has_global_[i] = find_global(parsed.symbols[i], &globals_[i]);
    }
  }
}

Interpreter::~Interpreter() {
  for (const auto& attributes : namespaces_) attributes->items.clear();  // namespaces may hold each other
}

Rendered Interpreter::render() {
  const char here = 0;
  stack_start_ = &here;
  root_ = enter(nullptr);
  run(parsed_.body, *root_);
  if (!unicode::is_valid(output_)) fail(ErrorCode::kInvalidInput, "the rendered text holds half of a surrogate pair");
  auto spans = generation_spans();
  return {std::move(output_), std::move(spans)};
}

// A block inside of a macro, {% set %} or {% filter %} is not yet in the output when it is rendered: it is looked for
// there from then on. One that never comes, or not as it was, has no span.
std::vector<Span> Interpreter::generation_spans() const {
  std::vector<Span> spans;
  size_t done = 0;
  for (const Generation& g : generation_) {
    Span span = g.span;
    if (!g.captured.empty()) {
      const size_t at = output_.find(g.captured, std::max(done, span.begin));
      if (at == std::string::npos) continue;
      span = {at, at + g.captured.size()};
    }
    done = span.end;
    spans.push_back(span);
  }
  return spans;
}

void Interpreter::charge(size_t steps) {
  steps_left_ -= static_cast<int64_t>(std::min<size_t>(steps, INT64_MAX / 4));
  if (steps_left_ < 0)
    fail(ErrorCode::kInvalidInput, "the template ran for more than {} steps and was stopped", options_.limits.steps);
}

void Interpreter::charge_bytes(size_t bytes) {
  bytes_left_ -= static_cast<int64_t>(std::min<size_t>(bytes, INT64_MAX / 4));
  if (bytes_left_ < 0 || static_cast<int64_t>(std::min<size_t>(bytes, INT64_MAX)) > options_.limits.output_bytes)
    fail(ErrorCode::kInvalidInput, "the template builds more text than the {} bytes allowed",
         bytes_left_ < 0 ? options_.limits.scratch_bytes : options_.limits.output_bytes);
}

void Interpreter::check_stack() const {
  const char here = 0;
  if (stack_start_ - &here > options_.limits.stack_bytes)
    fail(ErrorCode::kInvalidInput, "the template recurses too deeply");
}

Value Interpreter::make_string(std::string text, bool is_markup) {
  charge_bytes(text.size());
  return Value::string(std::move(text), is_markup);
}

std::string Interpreter::to_text(const Value& v) {
  if (v.is_string()) return v.text();
  return v.is_undefined() ? std::string() : to_repr(v);
}

std::string Interpreter::to_repr(const Value& v) {
  charge_walk(v);
  std::string out = repr(v);
  charge_bytes(out.size());
  return out;
}

Scope* Interpreter::enter(Scope* parent) {
  Scope* scope;
  if (free_scopes_.empty()) {
    scopes_.push_back(std::make_unique<Scope>());
    scope = scopes_.back().get();
    free_scopes_.reserve(scopes_.size());
  } else {
    scope = free_scopes_.back();
    free_scopes_.pop_back();
  }
  scope->parent = parent;
  return scope;
}

void Interpreter::leave(Scope* scope) {
  if (scope->is_captured) return;
  scope->variables.clear();
  free_scopes_.push_back(scope);
}

void Interpreter::capture(Scope* scope) {
  for (; scope != nullptr && !scope->is_captured; scope = scope->parent) scope->is_captured = true;
}

namespace {

void set_variable(Scope& scope, int symbol, Value value) {
  for (auto& [known, old] : scope.variables)
    if (known == symbol) {
      old = std::move(value);
      return;
    }
  scope.variables.emplace_back(symbol, std::move(value));
}

}  // namespace

Value Interpreter::lookup(int symbol, const Value& name, const Scope& scope) const {
  for (const Scope* s = &scope; s != nullptr; s = s->parent)
    for (const auto& [known, value] : s->variables)
      if (known == symbol) return value;
  if (has_global_[static_cast<size_t>(symbol)]) return globals_[static_cast<size_t>(symbol)];
  return Value::undefined_name(name);
}

void Interpreter::write(std::string_view text) {
  charge_bytes(text.size());
  if (static_cast<int64_t>(out_->size() + text.size()) > options_.limits.output_bytes)
    fail(ErrorCode::kInvalidInput, "the template writes more than the {} bytes allowed", options_.limits.output_bytes);
  out_->append(text);
}

void Interpreter::write(const Value& v) {
  if (v.is_string() && (!autoescape_ || v.is_markup())) return write(std::string_view(v.text()));
  const std::string text = to_text(v);
  write(autoescape_ ? escape_html(text) : text);
}

namespace {

// what `work` writes to `out`, instead of writing it there
template <class Work>
std::string captured(std::string*& out, Work work) {
  std::string buffer;
  struct Restore {
    std::string*& slot;
    std::string* value;
    ~Restore() { slot = value; }
  } restore{out, std::exchange(out, &buffer)};
  work();
  return buffer;
}

}  // namespace

std::string Interpreter::run_body(const std::vector<NodePtr>& body, Scope& scope) {
  return captured(out_, [&] { run(body, scope); });
}

Interpreter::Flow Interpreter::run(const std::vector<NodePtr>& body, Scope& scope) {
  for (const NodePtr& node : body) {
    const Flow flow = run(*node, scope);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run(const Node& node, Scope& scope) {
  charge(1);
  line_ = node.line;
  switch (node.kind) {
    case NodeKind::kData: write(std::string_view(node.constant.text())); return Flow::kNormal;
    case NodeKind::kPrint:
      for (const NodePtr& item : node.list) write(evaluate(*item, scope));
      return Flow::kNormal;
    case NodeKind::kIf: {
      const Node* branch = &node;
      while (true) {  // an elif is the only statement of `otherwise`
        if (truth(evaluate(*branch->a, scope))) return run(branch->body, scope);
        if (branch->otherwise.size() != 1 || branch->otherwise[0]->kind != NodeKind::kIf)
          return run(branch->otherwise, scope);
        branch = branch->otherwise[0].get();
      }
    }
    case NodeKind::kFor:
      check_stack();
      if (node.flag)
        write(run_recursive_loop(node, evaluate(*node.b, scope), scope, 0));
      else
        run_for(node, evaluate(*node.b, scope), scope, 0);
      return Flow::kNormal;
    case NodeKind::kSet: {
      const Value value = evaluate(*node.b, scope);
      assign(*node.a, value, scope);
      return Flow::kNormal;
    }
    case NodeKind::kSetBlock: {
      Value value;
      {
        const ScopeGuard guard(*this, &scope);
        value = make_string(run_body(node.body, *guard.scope), autoescape_);
        if (node.b) value = evaluate_filter(*node.b, *guard.scope, &value);
      }
      assign(*node.a, value, scope);
      return Flow::kNormal;
    }
    case NodeKind::kWith: {
      const ScopeGuard guard(*this, &scope);
      for (size_t i = 0; i < node.list.size(); i += 2)
        assign(*node.list[i], evaluate(*node.list[i + 1], scope), *guard.scope);
      return run(node.body, *guard.scope);
    }
    case NodeKind::kMacro:
      capture(&scope);
      set_variable(scope, node.symbol, make_macro(node, scope, node.constant));
      return Flow::kNormal;
    case NodeKind::kCallBlock: run_call_block(node, scope); return Flow::kNormal;
    case NodeKind::kFilterBlock: {
      const ScopeGuard guard(*this, &scope);
      const Value body = make_string(run_body(node.body, *guard.scope), autoescape_);
      write(evaluate_filter(*node.b, *guard.scope, &body));
      return Flow::kNormal;
    }
    case NodeKind::kBlock: {
      const ScopeGuard guard(*this, node.flag ? &scope : root_);
      run(node.body, *guard.scope);
      return Flow::kNormal;
    }
    case NodeKind::kGeneration: run_generation(node, scope); return Flow::kNormal;
    case NodeKind::kAutoescape: {
      const bool outer = std::exchange(autoescape_, truth(evaluate(*node.a, scope)));
      const ScopeGuard guard(*this, &scope);
      const Flow flow = run(node.body, *guard.scope);
      autoescape_ = outer;
      return flow;
    }
    case NodeKind::kRefused:
      fail(ErrorCode::kInvalidInput,
           "{{% {} %}} is not available: a chat template cannot load other templates; inline what it needs",
           node.constant.text());
    case NodeKind::kBreak: return Flow::kBreak;
    case NodeKind::kContinue: return Flow::kContinue;
    default: break;
  }
  PMETAL_ASSERT(false, "expression node run as a statement");
}

void Interpreter::assign(const Node& target, const Value& value, Scope& scope) {
  switch (target.kind) {
    case NodeKind::kName: set_variable(scope, target.symbol, value); return;
    case NodeKind::kNamespaceRef: {
      const Value object = lookup(target.symbol, target.constant, scope);
      if (!object.is(Kind::kNamespace))
        fail(ErrorCode::kInvalidInput, "cannot assign attribute on non-namespace object");
      charge_bytes(64);
      object.dict().set(target.constant, value);
      return;
    }
    default: {
      const size_t n = target.list.size();
      std::vector<Value> items;
      iterate(value, [&](const Value& item) {
        items.push_back(item);
        return items.size() <= n;
      });
      if (items.size() > n) throw_type_error(fmt::format("too many values to unpack (expected {})", n));
      if (items.size() < n)
        throw_type_error(fmt::format("not enough values to unpack (expected {}, got {})", n, items.size()));
      for (size_t i = 0; i < n; ++i) assign(*target.list[i], items[i], scope);
    }
  }
}

std::string Interpreter::run_recursive_loop(const Node& node, const Value& iterable, Scope& scope, int depth) {
  check_stack();
  capture(&scope);
  return captured(out_, [&] { run_for(node, iterable, scope, depth); });
}

void Interpreter::run_for(const Node& node, const Value& iterable, Scope& scope, int depth) {
  Value source = iterable;
  if (node.c) {  // the condition is asked as the loop goes, so it sees what the body has changed
    auto next = make_iterator(iterable);
    source = Value::iterator(
        [this, &node, &scope, next](Value& out) {
          while (next(out)) {
            charge(1);
            const ScopeGuard guard(*this, &scope);
            assign(*node.a, out, *guard.scope);
            if (truth(evaluate(*node.c, *guard.scope))) return true;
          }
          return false;
        },
        iterable);
  }
  auto loop = std::make_shared<LoopObject>(source, node, scope, depth);
  struct Finish {
    LoopObject& loop;
    ~Finish() { loop.finish(); }
  } finish{*loop};
  // as in jinja2, `else` also runs when every iteration was left by break or continue
  bool has_completed = false;
  Value item;
  while (loop->advance(item)) {
    charge(1);
    const ScopeGuard guard(*this, &scope);
    if (node.uses_loop) guard.scope->variables.emplace_back(parsed_.loop_symbol, Value::object(loop));
    assign(*node.a, item, *guard.scope);
    const Flow flow = run(node.body, *guard.scope);
    if (flow == Flow::kBreak) break;
    has_completed |= flow == Flow::kNormal;
  }
  if (!has_completed && !node.otherwise.empty()) {
    const ScopeGuard guard(*this, &scope);
    run(node.otherwise, *guard.scope);
  }
}

void Interpreter::run_call_block(const Node& node, Scope& scope) {
  capture(&scope);
  const Value caller = make_macro(node, scope, Value::string("caller"));
  write(evaluate_call(*node.a, scope, &caller));
}

void Interpreter::run_generation(const Node& node, Scope& scope) {
  check_stack();
  const ScopeGuard guard(*this, &scope);
  const std::string text = run_body(node.body, *guard.scope);
  generation_.push_back({{output_.size(), output_.size() + text.size()}, out_ == &output_ ? std::string() : text});
  write(std::string_view(text));
}

Value Interpreter::evaluate(const Node& node, Scope& scope) {
  charge(1);
  switch (node.kind) {
    case NodeKind::kConst: return node.constant;
    case NodeKind::kName: return lookup(node.symbol, node.constant, scope);
    case NodeKind::kTuple:
    case NodeKind::kList: {
      std::vector<Value> items;
      items.reserve(node.list.size());
      for (const NodePtr& item : node.list) items.push_back(evaluate(*item, scope));
      return node.kind == NodeKind::kList ? Value::list(std::move(items)) : Value::tuple(std::move(items));
    }
    case NodeKind::kDict: {
      auto dict = std::make_shared<DictObject>();
      for (size_t i = 0; i < node.list.size(); i += 2) {
        const Value key = evaluate(*node.list[i], scope);
        dict->set(key, evaluate(*node.list[i + 1], scope));
      }
      return Value::dict(std::move(dict));
    }
    case NodeKind::kGetAttr: return get_attribute(evaluate(*node.a, scope), node.constant);
    case NodeKind::kGetItem: {
      const Value object = evaluate(*node.a, scope);
      if (node.b->kind == NodeKind::kSlice) return evaluate_slice(object, *node.b, scope);
      return get_item(object, evaluate(*node.b, scope));
    }
    case NodeKind::kSlice: fail(ErrorCode::kInvalidInput, "a slice cannot stand among several subscripts");
    case NodeKind::kCall: check_stack(); return evaluate_call(node, scope, nullptr);
    case NodeKind::kFilter: check_stack(); return evaluate_filter(node, scope, nullptr);
    case NodeKind::kTest: return Value::boolean(evaluate_test(node, scope));
    case NodeKind::kNot: return Value::boolean(!truth(evaluate(*node.a, scope)));
    case NodeKind::kNegate: return negate(evaluate(*node.a, scope));
    case NodeKind::kPlus: return plus(evaluate(*node.a, scope));
    case NodeKind::kBinary: {
      const Value left = evaluate(*node.a, scope);
      return binary(*this, node.op, left, evaluate(*node.b, scope));
    }
    case NodeKind::kAnd: {
      Value left = evaluate(*node.a, scope);
      return truth(left) ? evaluate(*node.b, scope) : left;
    }
    case NodeKind::kOr: {
      Value left = evaluate(*node.a, scope);
      return truth(left) ? left : evaluate(*node.b, scope);
    }
    case NodeKind::kCompare: return evaluate_compare(node, scope);
    case NodeKind::kConcat: {
      std::string text;
      for (const NodePtr& item : node.list) {
        const Value v = evaluate(*item, scope);
        if (v.is_string())
          text += v.text();
        else
          text += to_text(v);
      }
      return make_string(std::move(text));
    }
    case NodeKind::kConditional:
      if (truth(evaluate(*node.b, scope))) return evaluate(*node.a, scope);
      if (node.c) return evaluate(*node.c, scope);
      return Value::undefined(fmt::format(
          "the inline if-expression on line {} evaluated to false and no else section was defined.", node.line));
    default: break;
  }
  PMETAL_ASSERT(false, "statement node evaluated as an expression");
}

Value Interpreter::evaluate_slice(const Value& object, const Node& node, Scope& scope) {
  const auto bound = [&](const NodePtr& part) { return part ? evaluate(*part, scope) : Value(); };
  const Value start = bound(node.a), stop = bound(node.b), step = bound(node.c);
  return slice(*this, object, start, stop, step);
}

Value Interpreter::evaluate_compare(const Node& node, Scope& scope) {
  Value left = evaluate(*node.a, scope);
  for (size_t i = 0; i < node.ops.size(); ++i) {
    Value right = evaluate(*node.list[i], scope);
    bool holds = false;
    const auto order = [&](const char* op) {
      charge(static_cast<size_t>(std::min(left.weight(), right.weight())));
      return compare(left, right, op);
    };
    switch (node.ops[i]) {
      case Op::kEq:
      case Op::kNe:
        charge(static_cast<size_t>(std::min(left.weight(), right.weight())));
        holds = equal(left, right) == (node.ops[i] == Op::kEq);
        break;
      case Op::kLt: holds = order("<") == -1; break;
      case Op::kLe: holds = order("<=") <= 0; break;
      case Op::kGt: holds = order(">") == 1; break;
      case Op::kGe: {
        const int c = order(">=");
        holds = c == 0 || c == 1;
        break;
      }
      case Op::kIn: holds = contains(*this, right, left); break;
      default: holds = !contains(*this, right, left); break;
    }
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

void Interpreter::evaluate_arguments(const Arguments* arguments, Scope& scope, CallArgs& out) {
  if (arguments == nullptr) return;
  out.positional.reserve(arguments->positional.size());
  for (const NodePtr& argument : arguments->positional) out.positional.push_back(evaluate(*argument, scope));
  if (arguments->star)
    iterate(evaluate(*arguments->star, scope), [&](const Value& v) {
      charge(1);
      out.positional.push_back(v);
      return true;
    });
  for (const auto& [key, argument] : arguments->keyword) out.keyword.emplace_back(key, evaluate(*argument, scope));
  if (arguments->double_star) {
    const Value more = evaluate(*arguments->double_star, scope);
    if (!more.is(Kind::kDict)) throw_type_error("argument after ** must be a mapping");
    for (const auto& [key, value] : more.dict().items) {
      if (!key.is_string()) throw_type_error("keywords must be strings");
      for (const auto& [known, _] : out.keyword)
        if (known == key.text()) throw_type_error(fmt::format("got multiple values for keyword argument '{}'", known));
      out.keyword.emplace_back(key.text(), value);
    }
  }
}

Value Interpreter::evaluate_call(const Node& node, Scope& scope, const Value* caller) {
  CallArgs args;
  const auto arguments = [&] {
    evaluate_arguments(node.arguments.get(), scope, args);
    if (caller) args.keyword.emplace_back("caller", *caller);
    line_ = node.line;
  };
  if (node.a->kind == NodeKind::kGetAttr) {  // a method: called without making a bound one
    const Value object = evaluate(*node.a->a, scope);
    if (const MethodFunction method = find_method(object, node.a->constant.text())) {
      arguments();
      return method(*this, object, args);
    }
    const Value callee = get_attribute(object, node.a->constant);
    arguments();
    return call(callee, args);
  }
  const Value callee = evaluate(*node.a, scope);
  arguments();
  return call(callee, args);
}

Value Interpreter::call(const Value& callee, CallArgs& args) {
  if (callee.is_undefined()) throw_undefined(callee);
  if (!callee.is(Kind::kObject) || !callee.object().is_callable())
    throw_type_error(fmt::format("'{}' object is not callable", type_name(callee)));
  check_stack();
  return callee.object().call(*this, args);
}

// `input` is the text of a filter or set block, taken by the innermost filter of the chain
Value Interpreter::evaluate_filter(const Node& node, Scope& scope, const Value* input) {
  const Value v = !node.a ? *input : input ? evaluate_filter(*node.a, scope, input) : evaluate(*node.a, scope);
  if (!node.filter) fail(ErrorCode::kInvalidInput, "No filter named '{}' found.", node.constant.text());
  CallArgs args;
  evaluate_arguments(node.arguments.get(), scope, args);
  line_ = node.line;
  return node.filter(*this, v, args);
}

bool Interpreter::evaluate_test(const Node& node, Scope& scope) {
  const Value v = evaluate(*node.a, scope);
  if (!node.test) fail(ErrorCode::kInvalidInput, "No test named '{}' found.", node.constant.text());
  CallArgs args;
  evaluate_arguments(node.arguments.get(), scope, args);
  return node.test(*this, v, args);
}

Value Interpreter::register_namespace(std::shared_ptr<DictObject> attributes) {
  charge_bytes(256);
  namespaces_.push_back(attributes);
  return Value::name_space(std::move(attributes));
}

}  // namespace pmetal::text::jinja
