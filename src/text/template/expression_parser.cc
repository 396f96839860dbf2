#include <algorithm>

#include "base/error.h"
#include "text/template/filters.h"
#include "text/template/parser.h"
#include "text/template/parser_base.h"
#include "text/template/template.h"
#include "text/template/tests.h"

namespace pmetal::text::jinja {

void ParserBase::error_at(int line, const std::string& what) {
  throw TemplateError(ErrorCode::kInvalidInput, "", line, what);
}

std::string ParserBase::describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData: return "template data";
    case TokenKind::kVariableBegin: return "begin of print statement";
    case TokenKind::kVariableEnd: return "end of print statement";
    case TokenKind::kBlockBegin: return "begin of statement block";
    case TokenKind::kBlockEnd: return "end of statement block";
    case TokenKind::kString: return "string";
    case TokenKind::kInteger: return "integer";
    case TokenKind::kFloat: return "float";
    case TokenKind::kEnd: return "end of template";
    case TokenKind::kName:
    case TokenKind::kOperator: return token.text;
  }
  return "";
}

bool ParserBase::skip_operator(std::string_view text) {
  if (!is_operator(text)) return false;
  next();
  return true;
}

bool ParserBase::skip_name(std::string_view text) {
  if (!is_name(text)) return false;
  next();
  return true;
}

void ParserBase::expect_operator(std::string_view text) {
  if (!skip_operator(text)) error(fmt::format("expected token '{}', got '{}'", text, describe(current())));
}

void ParserBase::expect_name(std::string_view text) {
  if (!skip_name(text)) error(fmt::format("expected '{}', got '{}'", text, describe(current())));
}

std::string ParserBase::expect_identifier() {
  if (current().kind != TokenKind::kName) error(fmt::format("expected a name, got '{}'", describe(current())));
  return next().text;
}

void ParserBase::expect(TokenKind kind) {
  if (current().kind != kind)
    error(fmt::format("expected {}, got '{}'", describe(Token{kind, 0, "", Value()}), describe(current())));
  next();
}

NodePtr ParserBase::make(NodeKind kind, int line) {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  node->line = line;
  return node;
}

int ParserBase::symbol(const std::string& name) {
  const auto [it, is_new] = symbol_ids_.emplace(name, static_cast<int>(result_.symbols.size()));
  if (is_new) result_.symbols.push_back(name);
  return it->second;
}

NodePtr ParserBase::name_node(const std::string& name, int line) {
  NodePtr node = make(NodeKind::kName, line);
  node->symbol = symbol(name);
  node->constant = Value::string(name);
  reads_.push_back(node->symbol);
  return node;
}

bool ParserBase::was_read_since(size_t mark, const std::string& name) const {
  const auto it = symbol_ids_.find(name);
  return it != symbol_ids_.end() &&
         std::find(reads_.begin() + static_cast<std::ptrdiff_t>(mark), reads_.end(), it->second) != reads_.end();
}

ParserBase::Depth::Depth(ParserBase& p) : parser(p) {
  if (++parser.depth_ > kMaxParseDepth) {
    --parser.depth_;
    parser.error(fmt::format("the template nests more than {} deep", kMaxParseDepth));
  }
}

NodePtr ExpressionParser::parse_expression(bool with_conditional) {
  const Depth depth(*this);
  NodePtr node = with_conditional ? parse_conditional() : parse_or();
  if (measure(*node) > kMaxHeight) error_at(node->line, "the expression is too complex");
  return node;
}

NodePtr ExpressionParser::chained(NodePtr node, int links) {
  if (links > kMaxParseDepth) error_at(node->line, "too many chained operators in one expression");
  return node;
}

// Height of the tree. Sub-expressions have been measured when they were parsed, so this descends only through the
// operators of one expression.
int ExpressionParser::measure(Node& node) {
  if (node.height > 0) return node.height;
  int height = 0;
  const auto add = [&](NodePtr& child) {
    if (child) height = std::max(height, measure(*child));
  };
  add(node.a);
  add(node.b);
  add(node.c);
  for (NodePtr& child : node.list) add(child);
  if (node.arguments) {
    for (NodePtr& child : node.arguments->positional) add(child);
    for (auto& [_, child] : node.arguments->keyword) add(child);
    add(node.arguments->star);
    add(node.arguments->double_star);
  }
  return node.height = height + 1;
}

NodePtr ExpressionParser::parse_conditional() {
  const int line = current().line;
  const size_t unknown = unknown_.size();
  NodePtr value = parse_or();
  while (skip_name("if")) {
    NodePtr node = make(NodeKind::kConditional, line);
    node->b = parse_or();
    if (skip_name("else")) {
      const Depth depth(*this);
      node->c = parse_conditional();
    }
    node->a = std::move(value);
    value = std::move(node);
    unknown_.resize(unknown);  // only one branch runs: an unknown filter is met at run time
  }
  return value;
}

NodePtr ExpressionParser::parse_or() {
  NodePtr left = parse_and();
  int links = 0;
  while (is_name("or")) {
    NodePtr node = make(NodeKind::kOr);
    next();
    node->a = std::move(left);
    node->b = parse_and();
    left = chained(std::move(node), ++links);
  }
  return left;
}

NodePtr ExpressionParser::parse_and() {
  NodePtr left = parse_not();
  int links = 0;
  while (is_name("and")) {
    NodePtr node = make(NodeKind::kAnd);
    next();
    node->a = std::move(left);
    node->b = parse_not();
    left = chained(std::move(node), ++links);
  }
  return left;
}

NodePtr ExpressionParser::parse_not() {
  if (!is_name("not")) return parse_compare();
  const Depth depth(*this);
  NodePtr node = make(NodeKind::kNot);
  next();
  node->a = parse_not();
  return node;
}

NodePtr ExpressionParser::parse_compare() {
  const int line = current().line;
  NodePtr left = parse_sum();
  NodePtr node;
  while (true) {
    Op op;
    if (is_operator("==")) {
      op = Op::kEq;
    } else if (is_operator("!=")) {
      op = Op::kNe;
    } else if (is_operator("<")) {
      op = Op::kLt;
    } else if (is_operator("<=")) {
      op = Op::kLe;
    } else if (is_operator(">")) {
      op = Op::kGt;
    } else if (is_operator(">=")) {
      op = Op::kGe;
    } else if (is_name("in")) {
      op = Op::kIn;
    } else if (is_name("not") && is_name(look(), "in")) {
      next();
      op = Op::kNotIn;
    } else {
      break;
    }
    next();
    if (!node) {
      node = make(NodeKind::kCompare, line);
      node->a = std::move(left);
    }
    node->ops.push_back(op);
    node->list.push_back(parse_sum());
  }
  return node ? std::move(node) : std::move(left);
}

NodePtr ExpressionParser::parse_sum() {
  NodePtr left = parse_concat();
  int links = 0;
  while (is_operator("+") || is_operator("-")) {
    NodePtr node = make(NodeKind::kBinary);
    node->op = next().text == "+" ? Op::kAdd : Op::kSub;
    node->a = std::move(left);
    node->b = parse_concat();
    left = chained(std::move(node), ++links);
  }
  return left;
}

NodePtr ExpressionParser::parse_concat() {
  const int line = current().line;
  NodePtr first = parse_product();
  if (!is_operator("~")) return first;
  NodePtr node = make(NodeKind::kConcat, line);
  node->list.push_back(std::move(first));
  while (skip_operator("~")) node->list.push_back(parse_product());
  return node;
}

NodePtr ExpressionParser::parse_product() {
  NodePtr left = parse_power();
  int links = 0;
  while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
    NodePtr node = make(NodeKind::kBinary);
    const std::string& text = next().text;
    node->op = text == "*" ? Op::kMul : text == "/" ? Op::kDiv : text == "//" ? Op::kFloorDiv : Op::kMod;
    node->a = std::move(left);
    node->b = parse_power();
    left = chained(std::move(node), ++links);
  }
  return left;
}

NodePtr ExpressionParser::parse_power() {
  NodePtr left = parse_unary();
  int links = 0;
  while (is_operator("**")) {
    NodePtr node = make(NodeKind::kBinary);
    next();
    node->op = Op::kPow;
    node->a = std::move(left);
    node->b = parse_unary();
    left = chained(std::move(node), ++links);
  }
  return left;
}

NodePtr ExpressionParser::parse_unary(bool with_filter) {
  const Depth depth(*this);
  NodePtr node;
  if (is_operator("-") || is_operator("+")) {
    node = make(is_operator("-") ? NodeKind::kNegate : NodeKind::kPlus);
    next();
    node->a = parse_unary(false);
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filter_expression(std::move(node)) : std::move(node);
}

NodePtr ExpressionParser::parse_primary(bool with_namespace) {
  const Token token = current();
  NodePtr node;
  switch (token.kind) {
    case TokenKind::kName: {
      next();
      const std::string& t = token.text;
      const bool is_bool = t == "true" || t == "false" || t == "True" || t == "False";
      if (is_bool || t == "none" || t == "None") {
        node = make(NodeKind::kConst, token.line);
        if (is_bool) node->constant = Value::boolean(t == "true" || t == "True");
        return node;
      }
      if (with_namespace && is_operator(".")) {
        next();
        node = make(NodeKind::kNamespaceRef, token.line);
        node->symbol = symbol(t);
        node->constant = Value::string(expect_identifier());
        return node;
      }
      return name_node(t, token.line);
    }
    case TokenKind::kString: {
      node = make(NodeKind::kConst, token.line);
      std::string text;
      while (current().kind == TokenKind::kString) text += next().text;
      node->constant = Value::string(std::move(text));
      return node;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      node = make(NodeKind::kConst, token.line);
      node->constant = token.number;
      next();
      return node;
    case TokenKind::kOperator:
      if (token.text == "(") {
        next();
        node = parse_tuple({.explicit_parentheses = true});
        expect_operator(")");
        return node;
      }
      if (token.text == "[") return parse_list();
      if (token.text == "{") return parse_dict();
      break;
    default: break;
  }
  error(fmt::format("unexpected '{}'", describe(token)));
}

bool ExpressionParser::is_tuple_end(const char* end_name) const {
  const TokenKind kind = current().kind;
  return kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd || is_operator(")") ||
         (end_name != nullptr && is_name(end_name));
}

NodePtr ExpressionParser::parse_tuple(const TupleOptions& options) {
  const Depth depth(*this);
  const int line = current().line;
  std::vector<NodePtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    if (is_tuple_end(options.end_name)) break;
    items.push_back(options.simplified ? parse_primary(options.with_namespace)
                                       : parse_expression(options.with_conditional));
    if (!is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!options.explicit_parentheses) error(fmt::format("Expected an expression, got '{}'", describe(current())));
  }
  NodePtr node = make(NodeKind::kTuple, line);
  node->list = std::move(items);
  return node;
}

NodePtr ExpressionParser::parse_list() {
  NodePtr node = make(NodeKind::kList);
  expect_operator("[");
  while (!is_operator("]")) {
    if (!node->list.empty()) expect_operator(",");
    if (is_operator("]")) break;
    node->list.push_back(parse_expression());
  }
  expect_operator("]");
  return node;
}

NodePtr ExpressionParser::parse_dict() {
  NodePtr node = make(NodeKind::kDict);
  expect_operator("{");
  while (!is_operator("}")) {
    if (!node->list.empty()) expect_operator(",");
    if (is_operator("}")) break;
    node->list.push_back(parse_expression());
    expect_operator(":");
    node->list.push_back(parse_expression());
  }
  expect_operator("}");
  return node;
}

NodePtr ExpressionParser::parse_postfix(NodePtr node) {
  for (int links = 0;; node = chained(std::move(node), ++links)) {
    if (is_operator(".") || is_operator("["))
      node = parse_subscript(std::move(node));
    else if (is_operator("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

NodePtr ExpressionParser::parse_filter_expression(NodePtr node) {
  for (int links = 0;; node = chained(std::move(node), ++links)) {
    if (is_operator("|"))
      node = parse_filter_chain(std::move(node), false);
    else if (is_name("is"))
      node = parse_test(std::move(node));
    else if (is_operator("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

NodePtr ExpressionParser::parse_subscript(NodePtr owner) {
  NodePtr node = make(NodeKind::kGetItem);
  if (next().text == ".") {
    const Token token = next();
    if (token.kind == TokenKind::kName) {
      node->kind = NodeKind::kGetAttr;
      node->constant = Value::string(token.text);
    } else if (token.kind == TokenKind::kInteger) {
      node->b = make(NodeKind::kConst, token.line);
      node->b->constant = token.number;
    } else {
      error_at(token.line, "expected name or number");
    }
    node->a = std::move(owner);
    return node;
  }
  node->a = std::move(owner);
  std::vector<NodePtr> items;
  while (!is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    items.push_back(parse_subscribed());
  }
  expect_operator("]");
  if (items.size() == 1) {
    node->b = std::move(items[0]);
  } else {
    node->b = make(NodeKind::kTuple);
    node->b->list = std::move(items);
  }
  return node;
}

NodePtr ExpressionParser::parse_subscribed() {
  const int line = current().line;
  NodePtr start;
  if (!is_operator(":")) {
    start = parse_expression();
    if (!is_operator(":")) return start;
  }
  next();
  NodePtr node = make(NodeKind::kSlice, line);
  node->a = std::move(start);
  const auto is_end = [&] { return is_operator("]") || is_operator(","); };
  if (!is_operator(":") && !is_end()) node->b = parse_expression();
  if (skip_operator(":") && !is_end()) node->c = parse_expression();
  return node;
}

std::unique_ptr<Arguments> ExpressionParser::parse_call_arguments() {
  auto arguments = std::make_unique<Arguments>();
  const int line = current().line;
  expect_operator("(");
  bool is_first = true;
  const auto ensure = [&](bool condition) {
    if (!condition) error_at(line, "invalid syntax for function call expression");
  };
  while (!is_operator(")")) {
    if (!is_first) {
      expect_operator(",");
      if (is_operator(")")) break;
    }
    is_first = false;
    if (is_operator("*")) {
      ensure(!arguments->star && !arguments->double_star);
      next();
      arguments->star = parse_expression();
    } else if (is_operator("**")) {
      ensure(!arguments->double_star);
      next();
      arguments->double_star = parse_expression();
    } else if (current().kind == TokenKind::kName && is_operator(look(), "=")) {
      ensure(!arguments->double_star);
      std::string key = next().text;
      next();
      for (const auto& [other, _] : arguments->keyword)
        if (other == key) error_at(line, fmt::format("keyword argument repeated: {}", key));
      arguments->keyword.emplace_back(std::move(key), parse_expression());
    } else {
      ensure(!arguments->star && !arguments->double_star && arguments->keyword.empty());
      arguments->positional.push_back(parse_expression());
    }
  }
  expect_operator(")");
  return arguments;
}

NodePtr ExpressionParser::parse_call(NodePtr callee) {
  NodePtr node = make(NodeKind::kCall);
  node->a = std::move(callee);
  node->arguments = parse_call_arguments();
  return node;
}

NodePtr ExpressionParser::parse_filter_chain(NodePtr input, bool start_inline) {
  for (int links = 1; is_operator("|") || start_inline; ++links) {
    if (!start_inline) next();
    start_inline = false;
    NodePtr node = make(NodeKind::kFilter);
    std::string name = expect_identifier();
    while (skip_operator(".")) name += "." + expect_identifier();
    node->filter = find_filter(name);
    if (node->filter == nullptr) unknown_.emplace_back(node->line, fmt::format("No filter named '{}' found.", name));
    node->constant = Value::string(std::move(name));
    if (is_operator("(")) node->arguments = parse_call_arguments();
    node->a = std::move(input);
    input = chained(std::move(node), links);
  }
  return input;
}

NodePtr ExpressionParser::parse_test(NodePtr input) {
  NodePtr node = make(NodeKind::kTest);
  next();
  const bool is_negated = skip_name("not");
  std::string name = expect_identifier();
  while (skip_operator(".")) name += "." + expect_identifier();
  node->test = find_test(name);
  if (node->test == nullptr) unknown_.emplace_back(node->line, fmt::format("No test named '{}' found.", name));
  node->constant = Value::string(std::move(name));
  node->a = std::move(input);
  const TokenKind kind = current().kind;
  if (is_operator("(")) {
    node->arguments = parse_call_arguments();
  } else if ((kind == TokenKind::kName || kind == TokenKind::kString || kind == TokenKind::kInteger ||
              kind == TokenKind::kFloat || is_operator("[") || is_operator("{")) &&
             !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) error("You cannot chain multiple tests with is");
    node->arguments = std::make_unique<Arguments>();
    node->arguments->positional.push_back(parse_postfix(parse_primary()));
  }
  if (!is_negated) return node;
  NodePtr negation = make(NodeKind::kNot, node->line);
  negation->a = std::move(node);
  return negation;
}

}  // namespace pmetal::text::jinja
