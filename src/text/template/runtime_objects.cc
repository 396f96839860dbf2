#include "text/template/runtime_objects.h"

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/interpreter.h"
#include "text/template/repr.h"

namespace pmetal::text::jinja {
namespace {

class Macro : public DynamicObject {
 public:
  Macro(const Node& node, Scope& scope, Value name) : node_(node), scope_(scope), name_(std::move(name)) {}

  const char* type_name() const override { return "Macro"; }
  std::string repr() const override { return "<Macro " + repr_string(name_.text()) + ">"; }
  bool is_callable() const override { return true; }

  bool attribute(Interpreter&, std::string_view name, Value& out) override {
    if (name == "name") {
      out = name_;
    } else if (name == "arguments") {
      std::vector<Value> names;
      for (const Parameter& p : node_.parameters) names.push_back(Value::string(p.name));
      out = Value::tuple(std::move(names));
    } else if (name == "catch_kwargs") {
      out = Value::boolean(node_.uses_kwargs);
    } else if (name == "catch_varargs") {
      out = Value::boolean(node_.uses_varargs);
    } else if (name == "caller") {
      out = Value::boolean(node_.uses_caller);
    } else {
      return false;
    }
    return true;
  }

  Value call(Interpreter& in, CallArgs& args) override {
    if (in.macro_depth >= in.options().limits.macro_depth)
      fail(ErrorCode::kInvalidInput, "macros call each other more than {} deep", in.options().limits.macro_depth);
    const Interpreter::ScopeGuard guard(in, &scope_);
    bind(in, args, *guard.scope);
    struct Depth {
      int& depth;
      explicit Depth(int& d) : depth(++d) {}
      ~Depth() { --depth; }
    } depth(in.macro_depth);
    return in.make_string(in.run_body(node_.body, *guard.scope), in.autoescape());
  }

 private:
  void bind(Interpreter& in, CallArgs& args, Scope& scope) {
    const size_t n = node_.parameters.size();
    bool has_caller_parameter = false;
    std::vector<std::optional<Value>> values(n);
    for (size_t i = 0; i < n; ++i) {
      const Parameter& p = node_.parameters[i];
      has_caller_parameter |= p.name == "caller";
      if (i < args.positional.size()) {
        values[i] = args.positional[i];
        continue;
      }
      for (size_t k = 0; k < args.keyword.size(); ++k) {
        if (args.keyword[k].first != p.name) continue;
        values[i] = args.keyword[k].second;
        args.keyword.erase(args.keyword.begin() + static_cast<std::ptrdiff_t>(k));
        break;
      }
    }
    Value caller = Value::undefined("No caller defined");
    if (node_.uses_caller && !has_caller_parameter) {
      for (size_t k = 0; k < args.keyword.size(); ++k) {
        if (args.keyword[k].first != "caller") continue;
        if (!args.keyword[k].second.is_none()) caller = args.keyword[k].second;
        args.keyword.erase(args.keyword.begin() + static_cast<std::ptrdiff_t>(k));
        break;
      }
    }
    if (!node_.uses_kwargs && !args.keyword.empty())
      throw_type_error(
          fmt::format("macro {} takes no keyword argument {}", jinja::repr(name_), repr_string(args.keyword[0].first)));
    if (!node_.uses_varargs && args.positional.size() > n)
      throw_type_error(fmt::format("macro {} takes not more than {} argument(s)", jinja::repr(name_), n));

    const ParsedTemplate& parsed = in.parsed();
    if (node_.uses_caller && !has_caller_parameter) scope.variables.emplace_back(parsed.caller_symbol, caller);
    if (node_.uses_kwargs) {
      auto dict = std::make_shared<DictObject>();
      for (auto& [key, value] : args.keyword) dict->set(key, value);
      scope.variables.emplace_back(parsed.kwargs_symbol, Value::dict(std::move(dict)));
    }
    if (node_.uses_varargs) {
      std::vector<Value> rest;
      for (size_t i = n; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
      scope.variables.emplace_back(parsed.varargs_symbol, Value::tuple(std::move(rest)));
    }
    for (size_t i = 0; i < n; ++i) {  // defaults see the parameters before them
      const Parameter& p = node_.parameters[i];
      Value v = values[i]         ? *values[i]
                : p.default_value ? in.evaluate(*p.default_value, scope)
                                  : Value::undefined(fmt::format("parameter '{}' was not provided", p.name));
      scope.variables.emplace_back(p.symbol, std::move(v));
    }
  }

  const Node& node_;
  Scope& scope_;
  Value name_;
};

class Cycler : public DynamicObject {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {
    for (const Value& v : items_) measure(*this, {&v});
  }
  const char* type_name() const override { return "Cycler"; }
  std::string repr() const override { return "<Cycler>"; }
  bool attribute(Interpreter&, std::string_view name, Value& out) override {
    if (name == "current") {
      out = items_[position_];
    } else if (name == "pos") {
      out = Value::integer(static_cast<int64_t>(position_));
    } else if (name == "items") {
      out = Value::tuple(items_);
    } else {
      return false;
    }
    return true;
  }
  Value next() {
    const Value v = items_[position_];
    position_ = (position_ + 1) % items_.size();
    return v;
  }
  void reset() { position_ = 0; }

 private:
  std::vector<Value> items_;
  size_t position_ = 0;
};

class Joiner : public DynamicObject {
 public:
  explicit Joiner(std::string separator) : separator_(std::move(separator)) {}
  const char* type_name() const override { return "Joiner"; }
  std::string repr() const override { return "<Joiner>"; }
  bool is_callable() const override { return true; }
  Value call(Interpreter&, CallArgs& args) override {
    const Bound bound("joiner", args, {});
    return Value::string(std::exchange(is_used_, true) ? separator_ : "");
  }

 private:
  std::string separator_;
  bool is_used_ = false;
};

// a cycler with its methods, which hold on to it
class CyclerHandle : public DynamicObject {
 public:
  explicit CyclerHandle(std::shared_ptr<Cycler> cycler) : cycler_(std::move(cycler)) {
    depth = cycler_->depth;
    weight = cycler_->weight;
  }
  const char* type_name() const override { return "Cycler"; }
  std::string repr() const override { return "<Cycler>"; }
  bool attribute(Interpreter& in, std::string_view name, Value& out) override {
    if (name == "next") {
      out = make_callable("next", [cycler = cycler_](Interpreter&, CallArgs&) { return cycler->next(); });
    } else if (name == "reset") {
      out = make_callable("reset", [cycler = cycler_](Interpreter&, CallArgs&) {
        cycler->reset();
        return Value();
      });
    } else {
      return cycler_->attribute(in, name, out);
    }
    return true;
  }

 private:
  std::shared_ptr<Cycler> cycler_;
};

}  // namespace

Value make_macro(const Node& node, Scope& scope, const Value& name) {
  return Value::object(std::make_shared<Macro>(node, scope, name));
}

Value make_cycler(std::vector<Value> items) {
  if (items.empty()) throw_type_error("at least one item has to be provided");
  return Value::object(std::make_shared<CyclerHandle>(std::make_shared<Cycler>(std::move(items))));
}

Value make_joiner(std::string separator) { return Value::object(std::make_shared<Joiner>(std::move(separator))); }

LoopObject::LoopObject(const Value& iterable, const Node& node, Scope& scope, int depth0)
    : iterable_(iterable), next_(make_iterator(iterable)), node_(node), scope_(scope), depth0_(depth0) {
  measure(*this, {&iterable});
}

bool LoopObject::peek() {
  if (after_) return true;
  if (is_exhausted_) return false;
  Value v;
  if (!next_(v)) {
    is_exhausted_ = true;
    return false;
  }
  after_ = std::move(v);
  return true;
}

bool LoopObject::advance(Value& item) {
  if (!peek()) return false;
  item = *std::move(after_);
  after_.reset();
  ++index0_;
  before_ = std::move(current_);
  current_ = item;
  return true;
}

void LoopObject::finish() {
  iterable_ = Value();
  next_ = nullptr;
  is_exhausted_ = true;
  after_.reset();
  current_.reset();
  before_.reset();
  changed_.reset();
  if (length_ < 0) length_ = index0_ + 1;
}

int64_t LoopObject::length(Interpreter& in) {
  if (length_ >= 0) return length_;
  if (jinja::has_length(iterable_)) return length_ = jinja::length(in, iterable_);
  // a one-shot iterator: read what is left of it
  std::vector<Value> rest;
  if (after_) rest.push_back(*std::move(after_));
  after_.reset();
  Value v;
  while (!is_exhausted_ && next_(v)) {
    in.charge(1);
    rest.push_back(v);
  }
  is_exhausted_ = false;
  length_ = static_cast<int64_t>(rest.size()) + index0_ + 1;
  const Value list = Value::list(std::move(rest));
  next_ = make_iterator(list);
  return length_;
}

bool LoopObject::attribute(Interpreter& in, std::string_view name, Value& out) {
  const auto number = [&](int64_t i) {
    out = Value::integer(i);
    return true;
  };
  if (name == "index") return number(index0_ + 1);
  if (name == "index0") return number(index0_);
  if (name == "first") {
    out = Value::boolean(index0_ == 0);
    return true;
  }
  if (name == "last") {
    out = Value::boolean(!peek());
    return true;
  }
  if (name == "length") return number(length(in));
  if (name == "revindex") return number(length(in) - index0_);
  if (name == "revindex0") return number(length(in) - index0_ - 1);
  if (name == "depth") return number(depth0_ + 1);
  if (name == "depth0") return number(depth0_);
  if (name == "previtem") {
    out = index0_ == 0 || !before_ ? Value::undefined("there is no previous item") : *before_;
    return true;
  }
  if (name == "nextitem") {
    out = peek() ? *after_ : Value::undefined("there is no next item");
    return true;
  }
  if (name == "cycle") {
    out = make_callable("cycle", [index = index0_](Interpreter&, CallArgs& args) {
      if (args.positional.empty()) throw_type_error("no items for cycling given");
      return args.positional[static_cast<size_t>(index) % args.positional.size()];
    });
    return true;
  }
  if (name == "changed") {
    out = make_callable("changed", [self = weak_from_this()](Interpreter& i, CallArgs& args) {
      const auto loop = self.lock();
      if (!loop) return Value::boolean(false);
      const Value now = Value::tuple(args.positional);
      i.charge_walk(now);
      if (loop->changed_ && equal(*loop->changed_, now)) return Value::boolean(false);
      loop->changed_ = now;
      return Value::boolean(true);
    });
    return true;
  }
  return false;
}

Value LoopObject::call(Interpreter& in, CallArgs& args) {
  const Bound bound("loop", args, {"iterable"}, 1);
  if (!node_.flag) throw_type_error("The loop must have the 'recursive' marker to be called recursively.");
  return in.make_string(in.run_recursive_loop(node_, bound[0], scope_, depth0_ + 1));
}

}  // namespace pmetal::text::jinja
