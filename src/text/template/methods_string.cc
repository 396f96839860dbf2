// The methods of Python's str. Positions count code points.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "text/template/arguments.h"
#include "text/template/format.h"
#include "text/template/interpreter.h"
#include "text/template/methods.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

size_t find_bytes(std::string_view text, std::string_view wanted, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (wanted.empty()) return from;
  const void* hit = memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  return hit ? static_cast<size_t>(static_cast<const char*>(hit) - text.data()) : std::string_view::npos;
}

// part of the text that optional start and end arguments (i and i + 1) select; `begin` is its byte offset
struct Part {
  std::string_view text;
  size_t begin_bytes = 0;
  int64_t begin_chars = 0;
  bool is_valid = true;  // false when start lies behind the end
};
Part part(const Value& self, const Bound& bound, size_t i) {
  const StringObject& s = self.string_object();
  const int64_t n = s.n_chars;
  const auto clamp = [&](size_t k, int64_t fallback) {
    if (!bound.has(k) || bound[k].is_none()) return fallback;
    int64_t v = to_index(bound[k]);
    if (v < 0) v = std::max<int64_t>(v + n, 0);
    return v;
  };
  const int64_t start = clamp(i, 0), end = std::min(clamp(i + 1, n), n);
  Part p;
  if (start > end || start > n) {
    p.is_valid = false;
    return p;
  }
  p.begin_chars = start;
  p.begin_bytes = unicode::offset(s.text, start);
  const std::string_view rest = std::string_view(s.text).substr(p.begin_bytes);
  p.text = rest.substr(0, unicode::offset(rest, end - start));
  return p;
}

Value like(Interpreter& in, const Value& self, std::string text) {
  return in.make_string(std::move(text), self.is_markup());
}

std::string argument_text(const Bound& bound, size_t i) { return bound.text(i, ""); }

template <std::string (*map)(std::string_view)>
Value mapped(Interpreter& in, const Value& self, CallArgs& args) {
  refuse_arguments("str method", args);
  in.charge(self.text().size() / 8);
  return like(in, self, map(self.text()));
}

template <bool left, bool right>
Value strip(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("strip", args, {""});
  if (!bound.has(0) || bound[0].is_none())
    return like(in, self, std::string(unicode::strip(self.text(), nullptr, left, right)));
  const std::u32string chars = unicode::to_u32(argument_text(bound, 0));
  in.charge(chars.size());
  return like(in, self, std::string(unicode::strip(self.text(), &chars, left, right)));
}

// the separators of a text, left to right or (for rsplit) right to left
Value split(Interpreter& in, const Value& self, CallArgs& args, bool from_right) {
  const Bound bound(from_right ? "rsplit" : "split", args, {"sep", "maxsplit"});
  int64_t limit = bound.integer(1, -1);
  const std::string_view text = self.text();
  in.charge(text.size() / 16 + 1);
  std::vector<Value> parts;
  const auto add = [&](std::string_view piece) {
    in.charge(1);
    parts.push_back(like(in, self, std::string(piece)));
  };
  if (!bound.has(0) || bound[0].is_none()) {
    std::string_view rest = text;
    while (true) {
      rest = unicode::strip(rest, nullptr, !from_right, from_right);
      if (rest.empty()) break;
      if (limit-- == 0) {
        add(rest);
        break;
      }
      if (!from_right) {
        size_t end = 0;
        while (end < rest.size() && !unicode::is_space(unicode::decode(rest, end)))
          end += unicode::sequence_length(rest, end);
        add(rest.substr(0, end));
        rest = rest.substr(end);
      } else {
        size_t begin = rest.size();
        while (begin > 0) {
          size_t previous = begin - 1;
          while (previous > 0 && (static_cast<unsigned char>(rest[previous]) & 0xc0) == 0x80) --previous;
          if (unicode::is_space(unicode::decode(rest, previous))) break;
          begin = previous;
        }
        add(rest.substr(begin));
        rest = rest.substr(0, begin);
      }
    }
  } else {
    const std::string separator = argument_text(bound, 0);
    if (separator.empty()) fail(ErrorCode::kInvalidInput, "empty separator");
    if (!from_right) {
      size_t begin = 0;
      while (true) {
        const size_t hit = limit == 0 ? std::string_view::npos : find_bytes(text, separator, begin);
        if (hit == std::string_view::npos) break;
        add(text.substr(begin, hit - begin));
        begin = hit + separator.size();
        --limit;
      }
      add(text.substr(begin));
    } else {
      std::string_view rest = text;
      while (limit-- != 0) {
        const size_t hit = rest.rfind(separator);
        if (hit == std::string_view::npos) break;
        in.charge((rest.size() - hit) / 16);
        add(rest.substr(hit + separator.size()));
        rest = rest.substr(0, hit);
      }
      add(rest);
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return Value::list(std::move(parts));
}
Value method_split(Interpreter& in, const Value& self, CallArgs& args) { return split(in, self, args, false); }
Value method_rsplit(Interpreter& in, const Value& self, CallArgs& args) { return split(in, self, args, true); }

Value method_splitlines(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("splitlines", args, {"keepends"});
  return Value::list(split_lines(in, self.text(), bound.boolean(0, false)));
}

template <bool from_right>
Value partition(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("partition", args, {""}, 1);
  const std::string separator = argument_text(bound, 0);
  if (separator.empty()) fail(ErrorCode::kInvalidInput, "empty separator");
  const std::string& text = self.text();
  in.charge(text.size() / 16 + 1);
  const size_t hit = from_right ? text.rfind(separator) : find_bytes(text, separator, 0);
  if (hit == std::string::npos) {
    const Value empty = Value::string("", self.is_markup());
    if (from_right) return Value::tuple({empty, empty, self});
    return Value::tuple({self, empty, empty});
  }
  return Value::tuple({like(in, self, text.substr(0, hit)), like(in, self, separator),
                       like(in, self, text.substr(hit + separator.size()))});
}

template <bool at_start>
Value has_affix(Interpreter& in, const Value& self, CallArgs& args) {
  const char* name = at_start ? "startswith" : "endswith";
  const Bound bound(name, args, {"", "", ""}, 1);
  const Part p = part(self, bound, 1);
  const auto matches = [&](const Value& affix) {
    if (!affix.is_string())
      throw_type_error(fmt::format("{} first arg must be str or a tuple of str, not {}", name, type_name(affix)));
    in.charge(1);
    if (!p.is_valid) return false;
    return at_start ? p.text.starts_with(affix.text()) : p.text.ends_with(affix.text());
  };
  if (!bound[0].is(Kind::kTuple)) return Value::boolean(matches(bound[0]));
  bool any = false;
  for (const Value& affix : bound[0].items()) {
    if (matches(affix)) {
      any = true;
      break;
    }
  }
  return Value::boolean(any);
}

template <bool from_right, bool must_find>
Value find(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(must_find ? "index" : "find", args, {"", "", ""}, 1);
  const std::string wanted = argument_text(bound, 0);
  const Part p = part(self, bound, 1);
  in.charge(self.text().size() / 16 + 1);
  const size_t hit = !p.is_valid  ? std::string_view::npos
                     : from_right ? p.text.rfind(wanted)
                                  : find_bytes(p.text, wanted, 0);
  if (hit == std::string_view::npos) {
    if (must_find) fail(ErrorCode::kInvalidInput, "substring not found");
    return Value::integer(-1);
  }
  return Value::integer(p.begin_chars + unicode::count(p.text.substr(0, hit)));
}

Value method_count(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("count", args, {"", "", ""}, 1);
  const std::string wanted = argument_text(bound, 0);
  const Part p = part(self, bound, 1);
  in.charge(self.text().size() / 16 + 1);
  if (!p.is_valid) return Value::integer(0);
  if (wanted.empty()) return Value::integer(unicode::count(p.text) + 1);
  int64_t n = 0;
  for (size_t at = 0; (at = find_bytes(p.text, wanted, at)) != std::string_view::npos; at += wanted.size()) ++n;
  return Value::integer(n);
}

Value method_replace(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("replace", args, {"", "", "count"}, 2);
  return like(in, self,
              replace_text(in, self.text(), argument_text(bound, 0), argument_text(bound, 1), bound.integer(2, -1)));
}

Value method_join(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("join", args, {""}, 1);
  std::string out;
  int64_t i = 0;
  iterate(bound[0], [&](const Value& v) {
    if (!v.is_string())
      throw_type_error(fmt::format("sequence item {}: expected str instance, {} found", i, type_name(v)));
    if (i++ > 0) out += self.text();
    out += v.text();
    in.charge_bytes(v.text().size() + self.text().size());
    return true;
  });
  return like(in, self, std::move(out));
}

Value method_format(Interpreter& in, const Value& self, CallArgs& args) { return format_braces(in, self, args); }

Value method_format_map(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("format_map", args, {""}, 1);
  if (!bound[0].is(Kind::kDict)) throw_type_error("format_map() argument must be a mapping");
  CallArgs named;
  for (const auto& [key, value] : bound[0].dict().items)
    if (key.is_string()) named.keyword.emplace_back(key.text(), value);
  return format_braces(in, self, named);
}

// centre (0), left (-1) or right (+1) in `width` characters
template <int side>
Value justify(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("center", args, {"", ""}, 1);
  const std::string fill = bound.text(1, " ");
  if (unicode::count(fill) != 1) throw_type_error("The fill character must be exactly one character long");
  return justified(in, self, to_index(bound[0]), fill, side);
}

Value method_zfill(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("zfill", args, {""}, 1);
  const int64_t width = to_index(bound[0]), missing = width - self.string_object().n_chars;
  if (missing <= 0) return self;
  in.charge_bytes(static_cast<size_t>(missing));
  const std::string& text = self.text();
  const size_t sign = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  return like(in, self, text.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') + text.substr(sign));
}

Value method_expandtabs(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("expandtabs", args, {"tabsize"});
  const int64_t size = bound.integer(0, 8);
  std::string out;
  int64_t column = 0;
  const std::string& text = self.text();
  for (size_t i = 0; i < text.size();) {
    const size_t n = unicode::sequence_length(text, i);
    if (text[i] == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      in.charge_bytes(static_cast<size_t>(spaces));
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      out.append(text, i, n);
      column = text[i] == '\n' || text[i] == '\r' ? 0 : column + 1;
    }
    i += n;
  }
  return like(in, self, std::move(out));
}

template <bool is_prefix>
Value remove_affix(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(is_prefix ? "removeprefix" : "removesuffix", args, {""}, 1);
  const std::string affix = argument_text(bound, 0);
  const std::string& text = self.text();
  if (is_prefix && text.starts_with(affix)) return like(in, self, text.substr(affix.size()));
  if (!is_prefix && text.ends_with(affix)) return like(in, self, text.substr(0, text.size() - affix.size()));
  return self;
}

// every character satisfies the predicate, and there is one
template <bool (*predicate)(char32_t), bool empty_result = false>
Value all(Interpreter& in, const Value& self, CallArgs& args) {
  refuse_arguments("str method", args);
  const std::string& text = self.text();
  in.charge(text.size() / 16);
  if (text.empty()) return Value::boolean(empty_result);
  for (size_t i = 0; i < text.size(); i += unicode::sequence_length(text, i))
    if (!predicate(unicode::decode(text, i))) return Value::boolean(false);
  return Value::boolean(true);
}

bool is_ascii_char(char32_t c) { return c < 0x80; }

Value method_islower(Interpreter& in, const Value& self, CallArgs& args) {
  refuse_arguments("islower", args);
  in.charge(self.text().size() / 16);
  bool any = false;
  for (const char32_t c : unicode::to_u32(self.text())) {
    if (unicode::is_upper(c) || unicode::is_title(c)) return Value::boolean(false);
    any |= unicode::is_lower(c);
  }
  return Value::boolean(any);
}
Value method_isupper(Interpreter& in, const Value& self, CallArgs& args) {
  refuse_arguments("isupper", args);
  in.charge(self.text().size() / 16);
  bool any = false;
  for (const char32_t c : unicode::to_u32(self.text())) {
    if (unicode::is_lower(c) || unicode::is_title(c)) return Value::boolean(false);
    any |= unicode::is_upper(c);
  }
  return Value::boolean(any);
}
Value method_istitle(Interpreter& in, const Value& self, CallArgs& args) {
  refuse_arguments("istitle", args);
  in.charge(self.text().size() / 16);
  bool any = false, previous_is_cased = false;
  for (const char32_t c : unicode::to_u32(self.text())) {
    if (unicode::is_upper(c) || unicode::is_title(c)) {
      if (previous_is_cased) return Value::boolean(false);
      previous_is_cased = any = true;
    } else if (unicode::is_lower(c)) {
      if (!previous_is_cased) return Value::boolean(false);
      any = true;
    } else {
      previous_is_cased = false;
    }
  }
  return Value::boolean(any);
}

Value method_isidentifier(Interpreter&, const Value& self, CallArgs& args) {
  refuse_arguments("isidentifier", args);
  bool is_first = true;
  for (const char32_t c : unicode::to_u32(self.text())) {
    if (!unicode::is_word(c) || (is_first && unicode::is_numeric(c))) return Value::boolean(false);
    is_first = false;
  }
  return Value::boolean(!is_first);
}

struct Entry {
  const char* name;
  MethodFunction function;
};
constexpr Entry kMethods[] = {{"strip", strip<true, true>},
                              {"split", method_split},
                              {"startswith", has_affix<true>},
                              {"endswith", has_affix<false>},
                              {"replace", method_replace},
                              {"format", method_format},
                              {"join", method_join},
                              {"lower", mapped<unicode::lower>},
                              {"upper", mapped<unicode::upper>},
                              {"title", mapped<unicode::title>},
                              {"capitalize", mapped<unicode::capitalize>},
                              {"swapcase", mapped<unicode::swapcase>},
                              {"casefold", mapped<unicode::casefold>},
                              {"lstrip", strip<true, false>},
                              {"rstrip", strip<false, true>},
                              {"rsplit", method_rsplit},
                              {"splitlines", method_splitlines},
                              {"partition", partition<false>},
                              {"rpartition", partition<true>},
                              {"find", find<false, false>},
                              {"rfind", find<true, false>},
                              {"index", find<false, true>},
                              {"rindex", find<true, true>},
                              {"count", method_count},
                              {"format_map", method_format_map},
                              {"center", justify<0>},
                              {"ljust", justify<-1>},
                              {"rjust", justify<1>},
                              {"zfill", method_zfill},
                              {"expandtabs", method_expandtabs},
                              {"removeprefix", remove_affix<true>},
                              {"removesuffix", remove_affix<false>},
                              {"isalpha", all<unicode::is_alpha>},
                              {"isalnum", all<unicode::is_alnum>},
                              {"isdigit", all<unicode::is_digit>},
                              {"isdecimal", all<unicode::is_decimal>},
                              {"isnumeric", all<unicode::is_numeric>},
                              {"isspace", all<unicode::is_space>},
                              {"isprintable", all<unicode::is_printable, true>},
                              {"isascii", all<is_ascii_char, true>},
                              {"islower", method_islower},
                              {"isupper", method_isupper},
                              {"istitle", method_istitle},
                              {"isidentifier", method_isidentifier}};

}  // namespace

MethodFunction find_string_method(std::string_view name) {
  for (const Entry& entry : kMethods)
    if (name == entry.name) return entry.function;
  return nullptr;
}

std::string replace_text(Interpreter& in, std::string_view text, std::string_view old, std::string_view with,
                         int64_t limit) {
  std::string out;
  in.charge(text.size() / 16 + 1);
  if (old.empty()) {  // before every character and at the end
    size_t i = 0;
    while (limit-- != 0) {
      in.charge_bytes(with.size());
      out += with;
      if (i >= text.size()) return out;
      const size_t n = unicode::sequence_length(text, i);
      out += text.substr(i, n);
      i += n;
    }
    return out += text.substr(i);
  }
  size_t begin = 0;
  while (limit-- != 0) {
    const size_t hit = find_bytes(text, old, begin);
    if (hit == std::string_view::npos) break;
    in.charge_bytes(with.size());
    out += text.substr(begin, hit - begin);
    out += with;
    begin = hit + old.size();
  }
  return out += text.substr(begin);
}

Value justified(Interpreter& in, const Value& text, int64_t width, const std::string& fill, int side) {
  const int64_t n = text.string_object().n_chars;
  if (width <= n) return text;
  const int64_t missing = width - n;
  in.charge_bytes(static_cast<size_t>(missing) * fill.size());
  const int64_t left = side < 0 ? 0 : side > 0 ? missing : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text.text();
  for (int64_t i = left; i < missing; ++i) out += fill;
  return Value::string(std::move(out), text.is_markup());
}

std::vector<Value> split_lines(Interpreter& in, const std::string& text, bool keep_ends) {
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t n = unicode::sequence_length(text, i);
    if (!unicode::is_line_break(unicode::decode(text, i))) {
      i += n;
      continue;
    }
    size_t end = i + n;
    if (text[i] == '\r' && end < text.size() && text[end] == '\n') ++end;
    lines.push_back(in.make_string(text.substr(begin, (keep_ends ? end : i) - begin)));
    in.charge(1);
    begin = i = end;
  }
  if (begin < text.size()) lines.push_back(in.make_string(text.substr(begin)));
  return lines;
}

}  // namespace pmetal::text::jinja
