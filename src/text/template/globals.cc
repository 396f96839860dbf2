#include "text/template/globals.h"

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/interpreter.h"
#include "text/template/runtime_objects.h"

namespace pmetal::text::jinja {
namespace {

Value global_range(Interpreter& in, CallArgs& args) {
  const Bound bound("range", args, {"", "", ""}, 1);
  const bool has_start = bound.has(1);
  const int64_t start = has_start ? to_index(bound[0]) : 0;
  const int64_t stop = to_index(bound[has_start ? 1 : 0]);
  const int64_t step = bound.integer(2, 1);
  if (step == 0) fail(ErrorCode::kInvalidInput, "range() arg 3 must not be zero");
  const Value range = Value::range(start, stop, step);
  if (range.range().size() > in.options().limits.range)
    fail(ErrorCode::kInvalidInput, "Range too big. The sandbox blocks ranges larger than {}.",
         in.options().limits.range);
  return range;
}

std::shared_ptr<DictObject> make_dict(Interpreter& in, CallArgs& args, const char* function) {
  if (args.positional.size() > 1)
    throw_type_error(fmt::format("{} expected at most 1 argument, got {}", function, args.positional.size()));
  auto dict = std::make_shared<DictObject>();
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is(Kind::kDict)) {
      for (const auto& [key, value] : source.dict().items) dict->set(key, value);
    } else {
      iterate(source, [&](const Value& pair) {
        in.charge(1);
        const std::vector<Value> items = to_vector(in, pair);
        if (items.size() != 2)
          throw_type_error(
              fmt::format("dictionary update sequence element has length {}; 2 is required", items.size()));
        dict->set(items[0], items[1]);
        return true;
      });
    }
  }
  for (const auto& [key, value] : args.keyword) dict->set(key, value);
  return dict;
}

Value global_dict(Interpreter& in, CallArgs& args) { return Value::dict(make_dict(in, args, "dict")); }
Value global_namespace(Interpreter& in, CallArgs& args) {
  return in.register_namespace(make_dict(in, args, "namespace"));
}
Value global_cycler(Interpreter&, CallArgs& args) {
  if (!args.keyword.empty()) throw_type_error("cycler() takes no keyword arguments");
  return make_cycler(args.positional);
}
Value global_joiner(Interpreter&, CallArgs& args) { return make_joiner(Bound("joiner", args, {"sep"}).text(0, ", ")); }

Value global_raise_exception(Interpreter& in, CallArgs& args) {
  const Bound bound("raise_exception", args, {"message"}, 1);
  fail(ErrorCode::kInvalidInput, "{}", in.to_text(bound[0]));
}

Value global_strftime_now(Interpreter& in, CallArgs& args) {
  const Bound bound("strftime_now", args, {"format"}, 1);
  return in.make_string(in.options().now.format(bound.text(0, "")));
}

Value global_lipsum(Interpreter&, CallArgs&) {
  fail(ErrorCode::kInvalidInput, "lipsum() is not available: chat templates have no random text");
}

struct Entry {
  const char* name;
  Value (*function)(Interpreter&, CallArgs&);
};

// prints as the Python class or function it stands for
struct Global : Callable {
  std::string repr() const override {
    if (name == "range" || name == "dict") return fmt::format("<class '{}'>", name);
    if (name == "namespace") return "<class 'jinja2.utils.Namespace'>";
    if (name == "cycler") return "<class 'jinja2.utils.Cycler'>";
    if (name == "joiner") return "<class 'jinja2.utils.Joiner'>";
    return fmt::format("<function {}>", name);
  }
};
constexpr Entry kGlobals[] = {{"range", global_range},
                              {"dict", global_dict},
                              {"namespace", global_namespace},
                              {"cycler", global_cycler},
                              {"joiner", global_joiner},
                              {"raise_exception", global_raise_exception},
                              {"strftime_now", global_strftime_now},
                              {"lipsum", global_lipsum}};

}  // namespace

bool find_global(std::string_view name, Value* out) {
  for (const Entry& entry : kGlobals) {
    if (name != entry.name) continue;
    auto global = std::make_shared<Global>();
    global->name = entry.name;
    global->function = entry.function;
    *out = Value::object(std::move(global));
    return true;
  }
  return false;
}

}  // namespace pmetal::text::jinja
