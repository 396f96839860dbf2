// Filters about HTML, URLs and laying out text.
#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/markup.h"
#include "text/template/methods.h"
#include "text/template/pprint.h"
#include "text/template/unicode.h"
#include "text/template/urlize.h"
#include "text/template/wordwrap.h"

namespace pmetal::text::jinja {
namespace {

Value filter_escape(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("escape", args);
  if (v.is_markup()) return v;
  return in.make_string(escape_html(in.to_text(v)), true);
}
Value filter_forceescape(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("forceescape", args);
  return in.make_string(escape_html(in.to_text(v)), true);
}
Value filter_safe(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("safe", args);
  return Value::string(in.to_text(v), true);
}

// without comments and tags, whitespace runs as one space, character references resolved
Value filter_striptags(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("striptags", args);
  std::string text = in.to_text(v);
  in.charge(text.size());
  const auto remove = [&](std::string_view open, std::string_view close) {
    std::string out;
    size_t begin = 0;
    while (true) {
      const size_t start = text.find(open, begin);
      const size_t end =
          start == std::string::npos ? start : text.find(close, start + open.size() - (open == "<" ? 1 : 0));
      if (end == std::string::npos) break;
      out.append(text, begin, start - begin);
      begin = end + close.size();
    }
    out.append(text, begin);
    text = std::move(out);
  };
  remove("<!--", "-->");
  remove("<", ">");
  std::string out;
  bool pending_space = false;
  for (size_t i = 0; i < text.size(); i += unicode::sequence_length(text, i)) {
    const char32_t c = unicode::decode(text, i);
    if (unicode::is_space(c)) {
      pending_space = !out.empty();
      continue;
    }
    if (std::exchange(pending_space, false)) out += ' ';
    unicode::append(out, c);
  }
  return in.make_string(unescape_html(out));
}

std::string quote_url(std::string_view text, bool for_query) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !for_query))
      out += c;
    else if (c == ' ' && for_query)
      out += '+';
    else
      out += fmt::format("%{:02X}", byte);
  }
  return out;
}

Value filter_urlencode(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("urlencode", args);
  if (v.is_string() || !is_iterable(v)) return in.make_string(quote_url(in.to_text(v), false));
  std::string out;
  const auto add = [&](const Value& key, const Value& value) {
    if (!out.empty()) out += '&';
    out += quote_url(in.to_text(key), true) + "=" + quote_url(in.to_text(value), true);
  };
  if (v.is(Kind::kDict)) {
    for (const auto& [key, value] : v.dict().items) add(key, value);
  } else {
    for (const Value& pair : to_vector(in, v)) {
      const std::vector<Value> items = to_vector(in, pair);
      if (items.size() != 2)
        throw_type_error(fmt::format("urlencode needs pairs, got {} values (expected 2)", items.size()));
      add(items[0], items[1]);
    }
  }
  return in.make_string(std::move(out));
}

Value filter_xmlattr(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("xmlattr", args, {"autospace"});
  if (v.is_undefined()) throw_undefined(v);
  if (!v.is(Kind::kDict)) throw_type_error(fmt::format("'{}' object has no attribute 'items'", type_name(v)));
  std::string out;
  for (const auto& [key, value] : v.dict().items) {
    if (value.is_none() || value.is_undefined()) continue;
    if (!key.is_string()) throw_type_error("expected string or bytes-like object");
    if (key.text().find_first_of(" \t\n\r\f\v/>=") != std::string::npos)
      fail(ErrorCode::kInvalidInput, "Invalid character in attribute name: '{}'", key.text());
    if (!out.empty()) out += ' ';
    out += escape_html(key.text()) + "=\"" + (value.is_markup() ? value.text() : escape_html(in.to_text(value))) + "\"";
  }
  if (!out.empty() && bound.boolean(0, true)) out.insert(out.begin(), ' ');
  return in.make_string(std::move(out));
}

Value filter_urlize(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("urlize", args, {"trim_url_limit", "nofollow", "target", "rel", "extra_schemes"});
  UrlizeOptions options;
  if (bound.has(0) && !bound[0].is_none()) options.trim_limit = to_index(bound[0]);
  std::vector<std::string> rel;
  if (bound.has(3) && !bound[3].is_none()) {
    CallArgs none;
    if (!bound[3].is_string())
      throw_type_error(fmt::format("'{}' object has no attribute 'split'", type_name(bound[3])));
    const Value words = find_string_method("split")(in, bound[3], none);
    for (const Value& word : words.items()) rel.push_back(word.text());
  }
  if (bound.boolean(1, false)) rel.push_back("nofollow");
  rel.push_back("noopener");
  std::sort(rel.begin(), rel.end());
  rel.erase(std::unique(rel.begin(), rel.end()), rel.end());
  for (const std::string& word : rel) options.rel += (options.rel.empty() ? "" : " ") + word;
  if (bound.has(2) && !bound[2].is_none()) options.target = bound.text(2, "");
  if (bound.has(4) && !bound[4].is_none())
    for (const Value& scheme : to_vector(in, bound[4])) options.extra_schemes.push_back(in.to_text(scheme));
  const std::string text = in.to_text(v);
  in.charge(text.size());
  return in.make_string(urlize(v.is_markup() ? text : escape_html(text), options));
}

Value filter_wordwrap(Interpreter& in, const Value& v, CallArgs& args) {
  const Bound bound("wordwrap", args, {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  if (v.is_undefined()) throw_undefined(v);
  if (!v.is_string()) throw_type_error(fmt::format("'{}' object has no attribute 'splitlines'", type_name(v)));
  const int64_t width = bound.integer(0, 79);
  if (width <= 0) fail(ErrorCode::kInvalidInput, "invalid width {} (must be > 0)", width);
  const std::string joiner = bound.has(2) && !bound[2].is_none() ? bound.text(2, "") : "\n";
  std::string out;
  bool is_first = true;
  for (const Value& line : split_lines(in, v.text(), false)) {
    if (!std::exchange(is_first, false)) out += joiner;
    bool is_first_piece = true;
    for (const std::string& piece : wrap(line.text(), width, bound.boolean(1, true), bound.boolean(3, true))) {
      if (!std::exchange(is_first_piece, false)) out += joiner;
      in.charge_bytes(piece.size() + joiner.size());
      out += piece;
    }
  }
  return in.make_string(std::move(out));
}

Value filter_pprint(Interpreter& in, const Value& v, CallArgs& args) {
  refuse_arguments("pprint", args);
  in.charge_walk(v);
  return in.make_string(pprint(v));
}

constexpr FilterEntry kFilters[] = {
    {"e", filter_escape},      {"escape", filter_escape},       {"forceescape", filter_forceescape},
    {"safe", filter_safe},     {"striptags", filter_striptags}, {"urlencode", filter_urlencode},
    {"urlize", filter_urlize}, {"xmlattr", filter_xmlattr},     {"wordwrap", filter_wordwrap},
    {"pprint", filter_pprint}};

}  // namespace

FilterTable markup_filters() { return {std::begin(kFilters), std::end(kFilters)}; }

}  // namespace pmetal::text::jinja
