#include "text/template/pprint.h"

#include <algorithm>

#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

constexpr int64_t kWidth = 80;

bool before(const std::pair<Value, Value>* a, const std::pair<Value, Value>* b) {
  const Value &x = a->first, &y = b->first;
  if (x.is_string() && y.is_string()) return x.text() < y.text();
  if (x.is_number() && y.is_number()) return x.to_real() < y.to_real();
  return std::string_view(type_name(x)) < type_name(y);
}

std::vector<const std::pair<Value, Value>*> sorted_items(const DictObject& dict) {
  std::vector<const std::pair<Value, Value>*> items;
  for (const auto& item : dict.items) items.push_back(&item);
  std::stable_sort(items.begin(), items.end(), before);
  return items;
}

// repr with the keys of dicts in order
std::string flat(const Value& v) {
  std::string out;
  if (v.is(Kind::kDict)) {
    out = "{";
    for (const auto* item : sorted_items(v.dict()))
      out += (out.size() > 1 ? ", " : "") + flat(item->first) + ": " + flat(item->second);
    return out + "}";
  }
  if (!v.is_sequence()) return repr(v);
  const bool is_list = v.is(Kind::kList);
  out = is_list ? "[" : "(";
  for (const Value& item : v.items()) out += (out.size() > 1 ? ", " : "") + flat(item);
  if (!is_list && v.items().size() == 1) out += ",";
  return out + (is_list ? "]" : ")");
}

class Printer {
 public:
  std::string out;

  void print(const Value& v, int64_t indent, int64_t allowance, int level) {
    const std::string text = flat(v);
    if (unicode::count(text) <= kWidth - indent - allowance) {
      out += text;
    } else if (v.is(Kind::kDict) && !v.dict().items.empty()) {
      out += '{';
      const auto items = sorted_items(v.dict());
      for (size_t i = 0; i < items.size(); ++i) {
        const std::string key = flat(items[i]->first);
        out += key + ": ";
        print(items[i]->second, indent + unicode::count(key) + 3, i + 1 == items.size() ? allowance + 1 : 1, level + 1);
        if (i + 1 < items.size()) line(indent + 1);
      }
      out += '}';
    } else if (v.is_sequence() && !v.items().empty()) {
      const bool is_list = v.is(Kind::kList);
      out += is_list ? '[' : '(';
      const auto& items = v.items();
      const int64_t closing = is_list ? 1 : items.size() == 1 ? 2 : 1;
      for (size_t i = 0; i < items.size(); ++i) {
        print(items[i], indent + 1, i + 1 == items.size() ? allowance + closing : 1, level + 1);
        if (i + 1 < items.size()) line(indent + 1);
      }
      out += is_list ? "]" : items.size() == 1 ? ",)" : ")";
    } else if (v.is_string() && !v.is_markup()) {
      print_string(v.text(), indent, allowance, level);
    } else {
      out += text;
    }
  }

 private:
  void line(int64_t indent, const char* end = ",\n") {
    out += end;
    out.append(static_cast<size_t>(indent), ' ');
  }

  static std::vector<std::string> lines_of(std::string_view s) {
    std::vector<std::string> lines;
    size_t begin = 0;
    for (size_t i = 0; i < s.size();) {
      const size_t n = unicode::sequence_length(s, i);
      size_t end = i + n;
      if (unicode::is_line_break(unicode::decode(s, i))) {
        if (s[i] == '\r' && end < s.size() && s[end] == '\n') ++end;
        lines.emplace_back(s.substr(begin, end - begin));
        begin = end;
      }
      i = end;
    }
    if (begin < s.size()) lines.emplace_back(s.substr(begin));
    return lines;
  }

  // runs of non-blanks with the blanks that follow them
  static std::vector<std::string> parts_of(std::string_view s) {
    std::vector<std::string> parts;
    size_t i = 0;
    while (i < s.size()) {
      const size_t begin = i;
      const auto is_blank = [&] { return unicode::is_space(unicode::decode(s, i)); };
      while (i < s.size() && !is_blank()) i += unicode::sequence_length(s, i);
      while (i < s.size() && is_blank()) i += unicode::sequence_length(s, i);
      parts.emplace_back(s.substr(begin, i - begin));
    }
    return parts;
  }

  // a long string as several literals, broken at line ends and blanks
  void print_string(const std::string& s, int64_t indent, int64_t allowance, int level) {
    std::vector<std::string> chunks;
    const std::vector<std::string> lines = lines_of(s);
    if (level == 0) {
      ++indent;
      ++allowance;
    }
    int64_t max_width = kWidth - indent;
    for (size_t i = 0; i < lines.size(); ++i) {
      const bool is_last_line = i + 1 == lines.size();
      const std::string whole = repr_string(lines[i]);
      const int64_t room = is_last_line ? max_width - allowance : max_width;
      if (unicode::count(whole) <= room) {
        chunks.push_back(whole);
        continue;
      }
      const std::vector<std::string> parts = parts_of(lines[i]);
      std::string current;
      for (size_t k = 0; k < parts.size(); ++k) {
        const std::string candidate = current + parts[k];
        const int64_t limit = k + 1 == parts.size() && is_last_line ? max_width - allowance : max_width;
        if (unicode::count(repr_string(candidate)) > limit) {
          if (!current.empty()) chunks.push_back(repr_string(current));
          current = parts[k];
        } else {
          current = candidate;
        }
      }
      if (!current.empty()) chunks.push_back(repr_string(current));
    }
    if (chunks.size() == 1) {
      out += chunks[0];
      return;
    }
    if (level == 0) out += '(';
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (i > 0) line(indent, "\n");
      out += chunks[i];
    }
    if (level == 0) out += ')';
  }
};

}  // namespace

std::string pprint(const Value& v) {
  Printer printer;
  printer.print(v, 0, 0, 0);
  return printer.out;
}

}  // namespace pmetal::text::jinja
