#include "text/template/parser.h"

#include <algorithm>

#include "base/error.h"
#include "text/template/parser_base.h"

namespace pmetal::text::jinja {
namespace {

constexpr int kMaxElifs = 300;  // they nest in the tree

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {
    result_.loop_symbol = symbol("loop");
    result_.caller_symbol = symbol("caller");
    result_.kwargs_symbol = symbol("kwargs");
    result_.varargs_symbol = symbol("varargs");
  }

  ParsedTemplate run() {
    result_.body = parse_body({});
    if (!unknown_.empty()) error_at(unknown_[0].first, unknown_[0].second);
    return std::move(result_);
  }

 private:
  using Body = std::vector<NodePtr>;
  using EndTags = std::initializer_list<const char*>;

  // statements until one of the end tags, whose name is then current; all of the template when there are none
  Body parse_body(EndTags end_tags) {
    const Depth depth(*this);
    Body body;
    while (current().kind != TokenKind::kEnd) {
      switch (current().kind) {
        case TokenKind::kData: {
          NodePtr node = make(NodeKind::kData);
          node->constant = Value::string(next().text);
          body.push_back(std::move(node));
          break;
        }
        case TokenKind::kVariableBegin: {
          NodePtr node = make(NodeKind::kPrint);
          next();
          node->list.push_back(parse_tuple());
          expect(TokenKind::kVariableEnd);
          body.push_back(std::move(node));
          break;
        }
        case TokenKind::kBlockBegin:
          next();
          for (const char* tag : end_tags)
            if (is_name(tag)) return body;
          body.push_back(parse_statement());
          expect(TokenKind::kBlockEnd);
          break;
        default: error(fmt::format("unexpected '{}'", describe(current())));
      }
    }
    if (end_tags.size() > 0) error(fmt::format("Unexpected end of template, looking for '{}'", *end_tags.begin()));
    return body;
  }

  // after the head of a block tag: its end, then the body
  Body parse_block(EndTags end_tags) {
    skip_operator(":");
    expect(TokenKind::kBlockEnd);
    return parse_body(end_tags);
  }
  Body parse_closed_block(const char* end_tag) {
    Body body = parse_block({end_tag});
    next();
    return body;
  }

  // A frame of its own: filters unknown in here are refused even if an enclosing branch never runs.
  template <class Parse>
  auto in_frame(Parse&& parse_it) {
    const size_t mark = unknown_.size();
    auto result = parse_it();
    if (unknown_.size() > mark) error_at(unknown_[mark].first, unknown_[mark].second);
    return result;
  }

  NodePtr parse_statement() {
    if (current().kind != TokenKind::kName) error("tag name expected");
    const std::string tag = current().text;
    if (tag == "for") return parse_for();
    if (tag == "if") return parse_if();
    if (tag == "set") return parse_set();
    if (tag == "with") return parse_with();
    if (tag == "macro") return parse_macro();
    if (tag == "call") return parse_call_block();
    if (tag == "filter") return parse_filter_block();
    if (tag == "block") return parse_block_tag();
    if (tag == "print") return parse_print();
    if (tag == "generation") return parse_generation();
    if (tag == "autoescape") return parse_autoescape();
    if (tag == "break" || tag == "continue") {
      NodePtr node = make(tag == "break" ? NodeKind::kBreak : NodeKind::kContinue);
      if (loops_ == 0) error(fmt::format("'{}' outside of a loop", tag));
      next();
      return node;
    }
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
      NodePtr node = make(NodeKind::kRefused);
      node->constant = Value::string(tag);
      next();
      while (current().kind != TokenKind::kBlockEnd && current().kind != TokenKind::kEnd) next();
      return node;
    }
    error(fmt::format("Encountered unknown tag '{}'.", tag));
  }

  void check_target(const Node& target) {
    switch (target.kind) {
      case NodeKind::kName: {
        const std::string& name = target.constant.text();
        if (in_for_target_ && name == "loop") error_at(target.line, "Can't assign to special loop variable");
        return;
      }
      case NodeKind::kNamespaceRef: return;
      case NodeKind::kTuple:
        for (const NodePtr& item : target.list) check_target(*item);
        return;
      default: error_at(target.line, "can't assign to this expression");
    }
  }

  NodePtr parse_target(bool with_namespace, const char* end_name) {
    const size_t reads = reads_.size();
    NodePtr target = parse_tuple({.simplified = true, .end_name = end_name, .with_namespace = with_namespace});
    reads_.resize(reads);
    check_target(*target);
    return target;
  }

  std::string parse_target_name() {
    const Token token = current();
    const std::string name = expect_identifier();
    for (const char* word : {"true", "false", "none", "True", "False", "None"})
      if (name == word) error_at(token.line, fmt::format("can't assign to '{}'", name));
    return name;
  }

  NodePtr parse_for() {
    NodePtr node = make(NodeKind::kFor);
    next();
    in_for_target_ = true;
    node->a = parse_target(false, "in");
    in_for_target_ = false;
    expect_name("in");
    node->b = parse_tuple({.with_conditional = false, .end_name = "recursive"});
    in_frame([&] {
      if (skip_name("if")) node->c = parse_expression();
      node->flag = skip_name("recursive");
      const size_t reads = reads_.size();
      ++loops_;
      node->body = parse_block({"endfor", "else"});
      --loops_;
      node->uses_loop = node->flag || was_read_since(reads, "loop");
      return 0;
    });
    if (next().text == "else") node->otherwise = in_frame([&] { return parse_closed_block("endfor"); });
    return node;
  }

  NodePtr parse_if() {
    const size_t unknown = unknown_.size();
    NodePtr first = make(NodeKind::kIf);
    Node* node = first.get();
    for (int n = 0;; ++n) {
      if (n > kMaxElifs) error("too many elif branches");
      next();
      node->a = parse_tuple({.with_conditional = false});
      node->body = parse_block({"elif", "else", "endif"});
      if (is_name("elif")) {
        node->otherwise.push_back(make(NodeKind::kIf));
        node = node->otherwise[0].get();
        continue;
      }
      if (next().text == "else") node->otherwise = parse_closed_block("endif");
      break;
    }
    unknown_.resize(unknown);  // the branch may never run
    return first;
  }

  NodePtr parse_set() {
    NodePtr node = make(NodeKind::kSet);
    next();
    node->a = parse_target(true, nullptr);
    if (skip_operator("=")) {
      node->b = parse_tuple();
      return node;
    }
    node->kind = NodeKind::kSetBlock;
    in_frame([&] {
      if (is_operator("|")) node->b = parse_filter_chain(nullptr, false);
      node->body = parse_closed_block("endset");
      return 0;
    });
    return node;
  }

  NodePtr parse_with() {
    NodePtr node = make(NodeKind::kWith);
    next();
    while (current().kind != TokenKind::kBlockEnd) {
      if (!node->list.empty()) expect_operator(",");
      node->list.push_back(parse_target(false, nullptr));
      expect_operator("=");
      node->list.push_back(parse_expression());
    }
    node->body = in_frame([&] { return parse_closed_block("endwith"); });
    return node;
  }

  void parse_signature(Node& node) {
    expect_operator("(");
    while (!is_operator(")")) {
      if (!node.parameters.empty()) expect_operator(",");
      Parameter parameter;
      parameter.name = parse_target_name();
      parameter.symbol = symbol(parameter.name);
      for (const Parameter& other : node.parameters)
        if (other.symbol == parameter.symbol) error(fmt::format("duplicate argument '{}'", parameter.name));
      if (skip_operator("="))
        parameter.default_value = parse_expression();
      else if (!node.parameters.empty() && node.parameters.back().default_value)
        error("non-default argument follows default argument");
      node.parameters.push_back(std::move(parameter));
    }
    expect_operator(")");
  }

  // body of a macro or call block; break and continue do not reach out of it
  void parse_function_body(Node& node, const char* end_tag) {
    const size_t reads = reads_.size();
    const int loops = std::exchange(loops_, 0);
    node.body = in_frame([&] { return parse_closed_block(end_tag); });
    loops_ = loops;
    node.uses_caller = was_read_since(reads, "caller");
    node.uses_kwargs = was_read_since(reads, "kwargs");
    node.uses_varargs = was_read_since(reads, "varargs");
    for (const Parameter& p : node.parameters) {
      if (p.name == "caller" && node.uses_caller && !p.default_value)
        error_at(node.line, "a macro's special \"caller\" argument must be omitted or be given a default");
      if (p.name == "kwargs") node.uses_kwargs = false;
      if (p.name == "varargs") node.uses_varargs = false;
    }
  }

  NodePtr parse_macro() {
    NodePtr node = make(NodeKind::kMacro);
    next();
    const std::string name = parse_target_name();
    node->symbol = symbol(name);
    node->constant = Value::string(name);
    in_frame([&] {
      parse_signature(*node);
      return 0;
    });
    parse_function_body(*node, "endmacro");
    return node;
  }

  NodePtr parse_call_block() {
    NodePtr node = make(NodeKind::kCallBlock);
    next();
    if (is_operator("(")) parse_signature(*node);
    node->a = parse_expression();
    if (node->a->kind != NodeKind::kCall) error_at(node->line, "expected call");
    parse_function_body(*node, "endcall");
    return node;
  }

  NodePtr parse_generation() {
    NodePtr node = make(NodeKind::kGeneration);
    next();
    result_.has_generation = true;
    parse_function_body(*node, "endgeneration");
    return node;
  }

  NodePtr parse_filter_block() {
    NodePtr node = make(NodeKind::kFilterBlock);
    next();
    in_frame([&] {
      node->b = parse_filter_chain(nullptr, true);
      node->body = parse_closed_block("endfilter");
      return 0;
    });
    return node;
  }

  NodePtr parse_block_tag() {
    NodePtr node = make(NodeKind::kBlock);
    next();
    const std::string name = expect_identifier();
    if (std::find(block_names_.begin(), block_names_.end(), name) != block_names_.end())
      error(fmt::format("block '{}' defined twice", name));
    block_names_.push_back(name);
    node->constant = Value::string(name);
    node->flag = skip_name("scoped");
    const bool is_required = skip_name("required");
    const int loops = std::exchange(loops_, 0);
    node->body = in_frame([&] { return parse_closed_block("endblock"); });
    loops_ = loops;
    if (is_required) error_at(node->line, fmt::format("Required block '{}' not found", name));
    skip_name(name);
    return node;
  }

  NodePtr parse_print() {
    NodePtr node = make(NodeKind::kPrint);
    next();
    while (current().kind != TokenKind::kBlockEnd) {
      if (!node->list.empty()) expect_operator(",");
      node->list.push_back(parse_expression());
    }
    return node;
  }

  NodePtr parse_autoescape() {
    NodePtr node = make(NodeKind::kAutoescape);
    next();
    node->a = parse_expression();
    node->body = in_frame([&] { return parse_closed_block("endautoescape"); });
    return node;
  }

  int loops_ = 0;
  bool in_for_target_ = false;
  std::vector<std::string> block_names_;
};

}  // namespace

ParsedTemplate parse(std::string_view source) { return Parser(tokenize(source)).run(); }

}  // namespace pmetal::text::jinja
