// The values a chat template computes with: Python's str, int, float, bool, None, list, tuple, dict, range, dict views
// and one-shot iterators, Jinja's Undefined and namespace, and callables. Values are cheap to copy (one shared
// pointer) and immutable except for namespaces. Strings are UTF-8 whose length and indices count code points.
//
// Nesting is limited to kMaxDepth when a container is built, so that destroying or printing a value never recurses
// deeper than that, and the size of a value as a tree to kMaxWeight, so that sharing cannot blow up what walks it.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pmetal::text::jinja {

class Interpreter;
class Value;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,     // int64; arithmetic that leaves its range is an error
  kBigInt,  // a whole number of the input beyond int64: prints, compares for equality and serialises, no arithmetic
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kDictView,
  kRange,
  kNamespace,
  kIterator,  // one-shot, like a Python generator
  kObject,    // callables, loop, cycler, joiner, macros
};

constexpr int64_t kMaxWeight = 20'000'000;
constexpr int kMaxDepth = 400;  // containers within containers; JSON of real conversations stays below 30

struct Object {
  virtual ~Object() = default;
  int depth = 0;       // 1 + the largest depth of what this holds
  int64_t weight = 1;  // 1 + the weights of what this holds: the cost of walking all of it
};

struct StringObject;
struct ListObject;
struct DictObject;
struct DictViewObject;
struct RangeObject;
struct IteratorObject;
struct UndefinedObject;
struct DynamicObject;

class Value {
 public:
  Value() = default;  // None
  static Value none() { return Value(); }
  static Value boolean(bool b);
  static Value integer(int64_t i);
  static Value big_integer(std::string digits);  // optional '-', then decimal digits
  static Value real(double d);
  static Value string(std::string text, bool is_markup = false);
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items, bool is_group = false);
  static Value dict(std::shared_ptr<DictObject> items);
  static Value name_space(std::shared_ptr<DictObject> items);
  static Value range(int64_t start, int64_t stop, int64_t step);
  static Value iterator(std::function<bool(Value&)> next, const Value& source);  // `source`: what next holds on to
  static Value object(std::shared_ptr<DynamicObject> object);
  // `message` is what an operation on this value fails with; printing it gives ""
  static Value undefined(std::string message);
  // the same with the message made only when needed: "'<type> object' has no attribute 'name'" or "'name' is undefined"
  static Value undefined_attribute(const Value& owner, const Value& name);
  static Value undefined_name(const Value& name);

  Kind kind() const { return kind_; }
  bool is(Kind k) const { return kind_ == k; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_markup() const { return is_markup_; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat || kind_ == Kind::kBigInt; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  bool as_bool() const { return scalar_.b; }
  int64_t as_int() const { return kind_ == Kind::kBool ? scalar_.b : scalar_.i; }
  double as_real() const { return scalar_.d; }
  double to_real() const;  // any number

  const StringObject& string_object() const;
  const std::string& text() const;          // kString and kBigInt
  const std::vector<Value>& items() const;  // kList, kTuple
  bool is_group() const;
  DictObject& dict() const;  // kDict, kNamespace
  const DictViewObject& view() const;
  const RangeObject& range() const;
  IteratorObject& iterator() const;
  const UndefinedObject& undefined_object() const;
  DynamicObject& object() const;
  const std::shared_ptr<Object>& handle() const { return object_; }
  int depth() const { return object_ ? object_->depth : 0; }
  int64_t weight() const { return object_ ? object_->weight : 1; }

 private:
  friend Value make_view(const Value& dict, int which);
  Kind kind_ = Kind::kNone;
  bool is_markup_ = false;
  union {
    bool b;
    int64_t i;
    double d;
  } scalar_ = {.i = 0};
  std::shared_ptr<Object> object_;
};

struct StringObject : Object {
  std::string text;
  int64_t n_chars = 0;
  bool is_ascii() const { return n_chars == static_cast<int64_t>(text.size()); }
};

struct ListObject : Object {
  std::vector<Value> items;
  bool is_group = false;  // a tuple of |groupby: has .grouper and .list
};

// Insertion-ordered; keys compare as in Python (1 == 1.0 == True).
struct DictObject : Object {
  std::vector<std::pair<Value, Value>> items;

  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;  // throws for keys Python cannot hash
  void set(const Value& key, Value value);
  void set(std::string_view key, Value value) { set(Value::string(std::string(key)), std::move(value)); }
  void erase(std::string_view key);

 private:
  int64_t index_of(const Value& key) const;
  std::unordered_multimap<size_t, uint32_t> index_;  // hash → position; kept once there are more than kLinear items
  static constexpr size_t kLinear = 8;
};

struct DictViewObject : Object {
  Value dict;
  enum Which { kKeys, kValues, kItems } which = kKeys;
};
Value make_view(const Value& dict, int which);

struct RangeObject : Object {
  int64_t start = 0, stop = 0, step = 1;
  int64_t size() const;
  int64_t at(int64_t i) const { return start + i * step; }
};

struct IteratorObject : Object {
  std::function<bool(Value&)> next;  // false at the end
};

struct UndefinedObject : Object {
  std::string message;  // when empty it is made from the two below
  const char* owner = nullptr;
  Value name;
  std::string text() const;
};

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

struct DynamicObject : Object {
  virtual const char* type_name() const = 0;
  virtual std::string repr() const = 0;
  virtual bool attribute(Interpreter&, std::string_view name, Value& out);  // false: no such attribute
  virtual bool is_callable() const { return false; }
  virtual Value call(Interpreter&, CallArgs& args);
  virtual bool has_length() const { return false; }
  virtual int64_t length(Interpreter&);
};

// a builtin function or bound method
struct Callable : DynamicObject {
  std::string name;
  std::function<Value(Interpreter&, CallArgs&)> function;
  const char* type_name() const override { return "builtin_function_or_method"; }
  std::string repr() const override { return "<built-in function " + name + ">"; }
  bool is_callable() const override { return true; }
  Value call(Interpreter& in, CallArgs& args) override { return function(in, args); }
};
Value make_callable(std::string name, std::function<Value(Interpreter&, CallArgs&)> function,
                    const Value& holds = Value());

const char* type_name(const Value& v);                        // as Python's type(v).__name__
bool truth(const Value& v);                                   // bool(v)
bool equal(const Value& a, const Value& b);                   // a == b
int compare(const Value& a, const Value& b, const char* op);  // <0, 0, >0, 2 when unordered (NaN); TypeError otherwise
size_t hash(const Value& v);                                  // throws for unhashable kinds
int64_t length(Interpreter& in, const Value& v);              // len(v), TypeError where Python has none
bool has_length(const Value& v);
// iter(v): calls `each` for every element until it returns false; TypeError where v is not iterable
void iterate(const Value& v, const std::function<bool(const Value&)>& each);
std::function<bool(Value&)> make_iterator(const Value& v);
bool is_iterable(const Value& v);
std::vector<Value> to_vector(Interpreter& in, const Value& v);  // list(v); charges the budget

[[noreturn]] void throw_type_error(const std::string& message);
[[noreturn]] void throw_undefined(const Value& v);

// sets depth and weight of `object` from what it holds; throws past the limits
void measure(Object& object, std::initializer_list<const Value*> holds);

}  // namespace pmetal::text::jinja
