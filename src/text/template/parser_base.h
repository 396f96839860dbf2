// What the expression and the statement parser share: the token cursor, symbols, errors, depth limit.
#pragma once

#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "text/template/ast.h"
#include "text/template/lexer.h"

namespace pmetal::text::jinja {

class ParserBase {
 protected:
  explicit ParserBase(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = tokens_[position_];
    if (position_ + 1 < tokens_.size()) ++position_;
    return token;
  }
  bool is_operator(std::string_view text) const { return is_operator(current(), text); }
  static bool is_operator(const Token& t, std::string_view text) {
    return t.kind == TokenKind::kOperator && t.text == text;
  }
  bool is_name(std::string_view text) const { return is_name(current(), text); }
  static bool is_name(const Token& t, std::string_view text) { return t.kind == TokenKind::kName && t.text == text; }
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  std::string expect_identifier();
  void expect(TokenKind kind);

  [[noreturn]] void error(const std::string& what) const { error_at(current().line, what); }
  [[noreturn]] static void error_at(int line, const std::string& what);
  static std::string describe(const Token& token);

  NodePtr make(NodeKind kind) const { return make(kind, current().line); }
  static NodePtr make(NodeKind kind, int line);
  int symbol(const std::string& name);
  // a read of `name`; remembered so that loops and macros know whether their body names loop, caller …
  NodePtr name_node(const std::string& name, int line);
  bool was_read_since(size_t mark, const std::string& name) const;

  // counts nesting while it lives
  struct Depth {
    explicit Depth(ParserBase& parser);
    ~Depth() { --parser.depth_; }
    ParserBase& parser;
  };

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int depth_ = 0;
  ParsedTemplate result_;
  std::map<std::string, int> symbol_ids_;
  std::vector<int> reads_;
  // unknown filters and tests met so far that no conditional encloses: (line, message)
  std::vector<std::pair<int, std::string>> unknown_;
};

// expressions
class ExpressionParser : protected ParserBase {
 protected:
  using ParserBase::ParserBase;
  struct TupleOptions {
    bool simplified = false;  // only primaries: assignment targets
    bool with_conditional = true;
    const char* end_name = nullptr;  // a name that also ends the tuple
    bool explicit_parentheses = false;
    bool with_namespace = false;
  };
  NodePtr parse_expression(bool with_conditional = true);
  NodePtr parse_tuple(const TupleOptions& options);
  NodePtr parse_tuple() { return parse_tuple(TupleOptions()); }
  NodePtr parse_filter_chain(NodePtr input, bool start_inline);
  NodePtr parse_primary(bool with_namespace = false);
  std::unique_ptr<Arguments> parse_call_arguments();

 private:
  static NodePtr chained(NodePtr node, int links);
  static int measure(Node& node);
  NodePtr parse_conditional();
  NodePtr parse_or();
  NodePtr parse_and();
  NodePtr parse_not();
  NodePtr parse_compare();
  NodePtr parse_sum();
  NodePtr parse_concat();
  NodePtr parse_product();
  NodePtr parse_power();
  NodePtr parse_unary(bool with_filter = true);
  NodePtr parse_list();
  NodePtr parse_dict();
  NodePtr parse_postfix(NodePtr node);
  NodePtr parse_filter_expression(NodePtr node);
  NodePtr parse_subscript(NodePtr node);
  NodePtr parse_subscribed();
  NodePtr parse_call(NodePtr node);
  NodePtr parse_test(NodePtr node);
  bool is_tuple_end(const char* end_name) const;
};

}  // namespace pmetal::text::jinja
