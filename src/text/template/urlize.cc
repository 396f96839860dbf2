#include "text/template/urlize.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "text/template/markup.h"
#include "text/template/unicode.h"

namespace pmetal::text::jinja {
namespace {

using View = std::string_view;

bool all_of(View s, bool (*predicate)(char32_t)) {
  for (size_t i = 0; i < s.size(); i += unicode::sequence_length(s, i))
    if (!predicate(unicode::decode(s, i))) return false;
  return true;
}
bool is_label_char(char32_t c) { return unicode::is_word(c) || c == '%' || c == '-'; }
bool is_ascii_letter(char32_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
bool is_not_space(char32_t c) { return !unicode::is_space(c); }

std::vector<View> split(View s, char separator) {
  std::vector<View> out;
  size_t begin = 0;
  for (size_t i = 0; i <= s.size(); ++i)
    if (i == s.size() || s[i] == separator) {
      out.push_back(s.substr(begin, i - begin));
      begin = i + 1;
    }
  return out;
}

bool is_tld(View s) {
  const int64_t n = unicode::count(s);
  if (n >= 2 && n <= 63 && all_of(s, is_ascii_letter)) return true;
  return unicode::lower(s.substr(0, 4)) == "xn--" && n >= 6 && n <= 63 &&
         all_of(s.substr(4), [](char32_t c) { return unicode::is_word(c) || c == '%'; });
}

bool is_ipv4(View s) {
  const auto parts = split(s, '.');
  return parts.size() == 4 && std::all_of(parts.begin(), parts.end(), [](View p) {
           return !p.empty() && p.size() <= 3 && all_of(p, unicode::is_decimal);
         });
}

bool is_ipv6(View s) {
  if (s.size() < 4 || s.front() != '[' || s.back() != ']') return false;
  const auto parts = split(s.substr(1, s.size() - 2), ':');
  return parts.size() >= 3 && parts.size() <= 9 && std::all_of(parts.begin(), parts.end(), [](View p) {
           return p.size() <= 4 && std::all_of(p.begin(), p.end(), [](char c) {
                    return std::isxdigit(static_cast<unsigned char>(c)) != 0;
                  });
         });
}

// what may follow a host: a port, then a path, query or fragment
bool is_url_rest(View s) {
  if (s.starts_with(":")) {
    size_t n = 1;
    while (n < s.size() && n <= 5 && std::isdigit(static_cast<unsigned char>(s[n]))) ++n;
    if (n == 1) return false;
    s.remove_prefix(n);
  }
  return s.empty() || ((s[0] == '/' || s[0] == '?' || s[0] == '#') && all_of(s, is_not_space));
}

bool is_url(View s) {
  const std::string folded = unicode::lower(s);
  const size_t scheme = folded.starts_with("https://") ? 8 : folded.starts_with("http://") ? 7 : 0;
  const bool is_www = scheme == 0 && folded.starts_with("www.");
  const View rest = s.substr(scheme);
  if (scheme > 0 && rest.starts_with("[")) {
    const size_t end = rest.find(']');
    return end != View::npos && is_ipv6(rest.substr(0, end + 1)) && is_url_rest(rest.substr(end + 1));
  }
  const size_t host_end = std::min(rest.find_first_of(":/?#"), rest.size());
  const View host = rest.substr(0, host_end);
  if (!is_url_rest(rest.substr(host_end))) return false;
  if (scheme > 0 && is_ipv4(host)) return true;
  std::vector<View> labels = split(is_www ? host.substr(4) : host, '.');
  const View last = labels.back();
  labels.pop_back();
  const auto are_labels = [&](int64_t low, int64_t high) {
    return std::all_of(labels.begin(), labels.end(), [&](View label) {
      const int64_t n = unicode::count(label);
      return n >= low && n <= high && all_of(label, is_label_char);
    });
  };
  if (scheme > 0 || is_www) return is_tld(last) && are_labels(1, INT64_MAX);
  const std::string tld = unicode::lower(last);
  for (const char* known : {"com", "net", "int", "edu", "gov", "org", "info", "mil"})
    if (tld == known) return !labels.empty() && are_labels(2, 63);
  return false;
}

bool is_mail(View s) {
  const size_t at = s.rfind('@');
  if (at == View::npos || at == 0 || !all_of(s, is_not_space)) return false;
  const View domain = s.substr(at + 1);
  const size_t dot = domain.rfind('.');
  if (dot == View::npos || dot == 0 || dot + 1 == domain.size()) return false;
  return unicode::is_word(unicode::decode(domain, 0)) && all_of(domain.substr(dot + 1), unicode::is_word) &&
         all_of(domain.substr(0, dot), [](char32_t c) { return unicode::is_word(c) || c == '.' || c == '-'; });
}

size_t occurrences(View s, View what) {
  size_t n = 0;
  for (size_t at = 0; (at = s.find(what, at)) != View::npos; at += what.size()) ++n;
  return n;
}

std::string linked(View word, const UrlizeOptions& options) {
  std::string attributes;
  if (!options.rel.empty()) attributes += " rel=\"" + escape_html(options.rel) + "\"";
  if (!options.target.empty()) attributes += " target=\"" + escape_html(options.target) + "\"";
  // brackets and punctuation around the link
  View rest = word;
  while (true) {
    if (rest.starts_with("(") || rest.starts_with("<"))
      rest.remove_prefix(1);
    else if (rest.starts_with("&lt;"))
      rest.remove_prefix(4);
    else
      break;
  }
  const std::string head(word.substr(0, word.size() - rest.size()));
  size_t end = rest.size();
  while (end > 0) {
    const View left = rest.substr(0, end);
    if (left.ends_with("&gt;"))
      end -= 4;
    else if (View(")>.,\n").find(left.back()) != View::npos)
      end -= 1;
    else
      break;
  }
  std::string middle(rest.substr(0, end)), tail(rest.substr(end));
  constexpr std::pair<View, View> kPairs[] = {{"(", ")"}, {"<", ">"}, {"&lt;", "&gt;"}};
  for (const auto& [open, close] : kPairs) {
    const size_t opened = occurrences(middle, open);
    if (opened <= occurrences(middle, close)) continue;
    for (size_t n = std::min(opened, occurrences(tail, close)); n > 0; --n) {
      const size_t cut = tail.find(close) + close.size();
      middle += tail.substr(0, cut);
      tail = tail.substr(cut);
    }
  }
  const auto shown = [&] {
    if (options.trim_limit < 0 || unicode::count(middle) <= options.trim_limit) return middle;
    return middle.substr(0, unicode::offset(middle, options.trim_limit)) + "...";
  };
  if (is_url(middle)) {
    const bool has_scheme = middle.starts_with("https://") || middle.starts_with("http://");
    middle = fmt::format("<a href=\"{}{}\"{}>{}</a>", has_scheme ? "" : "https://", middle, attributes, shown());
  } else if (middle.starts_with("mailto:") && is_mail(View(middle).substr(7))) {
    middle = fmt::format("<a href=\"{}\">{}</a>", middle, middle.substr(7));
  } else if (middle.find('@') != std::string::npos && !middle.starts_with("www.") && !middle.starts_with("@") &&
             middle.find(':') == std::string::npos && is_mail(middle)) {
    middle = fmt::format("<a href=\"mailto:{}\">{}</a>", middle, middle);
  } else {
    for (const std::string& scheme : options.extra_schemes)
      if (middle != scheme && middle.starts_with(scheme))
        middle = fmt::format("<a href=\"{}\"{}>{}</a>", middle, attributes, middle);
  }
  return head + middle + tail;
}

}  // namespace

std::string urlize(View text, const UrlizeOptions& options) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    while (i < text.size() && !unicode::is_space(unicode::decode(text, i))) i += unicode::sequence_length(text, i);
    if (i > begin) out += linked(text.substr(begin, i - begin), options);
    const size_t blank = i;
    while (i < text.size() && unicode::is_space(unicode::decode(text, i))) i += unicode::sequence_length(text, i);
    out += text.substr(blank, i - blank);
  }
  return out;
}

}  // namespace pmetal::text::jinja
