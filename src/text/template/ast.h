// The parsed template: one Node type for expressions, targets and statements. Which fields a kind uses stands beside
// it. Nodes are immutable after parsing, so that many threads may render one template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template/value.h"

namespace pmetal::text::jinja {

struct Node;
using NodePtr = std::unique_ptr<Node>;

enum class NodeKind : uint8_t {
  // expressions
  kConst,         // constant
  kName,          // symbol, constant = the name
  kTuple,         // list
  kList,          // list
  kDict,          // list: key, value, key, value …
  kGetAttr,       // a.constant
  kGetItem,       // a[b]
  kSlice,         // a:b:c, each may be null; only as the b of kGetItem or inside its tuple
  kCall,          // a(arguments)
  kFilter,        // a|constant(arguments); a is null for the body of a block; filter is null when unknown
  kTest,          // a is constant(arguments); test is null when unknown
  kNot,           // a
  kNegate,        // a
  kPlus,          // a
  kBinary,        // a op b
  kAnd,           // a and b
  kOr,            // a or b
  kCompare,       // a ops[0] list[0] ops[1] list[1] …
  kConcat,        // list joined by ~
  kConditional,   // a if b else c (c may be null)
  kNamespaceRef,  // target only: symbol.constant
  // statements
  kData,         // constant
  kPrint,        // list
  kIf,           // a, body, otherwise (an elif is a kIf in otherwise)
  kFor,          // target a in b if c; body, otherwise; flag = recursive; uses_loop
  kSet,          // target a = b
  kSetBlock,     // target a, filter chain b (may be null), body
  kWith,         // list: target, value, target, value …; body
  kMacro,        // symbol, constant = name, parameters, body
  kCallBlock,    // parameters, a = the call, body
  kFilterBlock,  // filter chain b, body
  kBlock,        // constant = name, body, flag = scoped
  kGeneration,   // body; its text is reported as a span
  kAutoescape,   // a, body
  kRefused,      // constant = include | import | from | extends: fails when reached
  kBreak,
  kContinue,
};

enum class Op : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow, kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Arguments {
  std::vector<NodePtr> positional;
  std::vector<std::pair<std::string, NodePtr>> keyword;
  NodePtr star;         // *args
  NodePtr double_star;  // **kwargs
  bool empty() const { return positional.empty() && keyword.empty() && !star && !double_star; }
};

struct Parameter {
  int symbol = -1;
  std::string name;
  NodePtr default_value;
};

using FilterFunction = Value (*)(Interpreter&, const Value& input, CallArgs& args);
using TestFunction = bool (*)(Interpreter&, const Value& input, CallArgs& args);

struct Node {
  NodeKind kind;
  int line = 1;
  Op op = Op::kAdd;
  bool flag = false;
  bool uses_loop = false;    // kFor: the body names `loop`
  bool uses_caller = false;  // kMacro, kCallBlock: the body names caller, kwargs, varargs
  bool uses_kwargs = false;
  bool uses_varargs = false;
  int height = 0;  // expressions: of the tree below, once measured
  int symbol = -1;
  Value constant;
  NodePtr a, b, c;
  std::vector<NodePtr> list;
  std::vector<Op> ops;
  std::vector<NodePtr> body;
  std::vector<NodePtr> otherwise;
  std::unique_ptr<Arguments> arguments;
  std::vector<Parameter> parameters;
  FilterFunction filter = nullptr;
  TestFunction test = nullptr;
};

struct ParsedTemplate {
  std::vector<NodePtr> body;
  std::vector<std::string> symbols;  // index = Node::symbol
  int loop_symbol = -1, caller_symbol = -1, kwargs_symbol = -1, varargs_symbol = -1;
  bool has_generation = false;
};

}  // namespace pmetal::text::jinja
