#include "text/template/template.h"

#include <chrono>
#include <clocale>
#include <cstdio>
#include <ctime>

#include "base/error.h"
#include "text/template/interpreter.h"
#include "text/template/parser.h"

namespace pmetal::text::jinja {
namespace {

bool is_leap(int year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

int days_in_month(int year, int month) {
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return month == 2 && is_leap(year) ? 29 : kDays[month - 1];
}

std::tm to_tm(const DateTime& t) {
  std::tm tm = {};
  tm.tm_year = t.year - 1900;
  tm.tm_mon = t.month - 1;
  tm.tm_mday = t.day;
  tm.tm_hour = t.hour;
  tm.tm_min = t.minute;
  tm.tm_sec = t.second;
  tm.tm_isdst = -1;
  int day_of_year = t.day - 1;
  for (int m = 1; m < t.month; ++m) day_of_year += days_in_month(t.year, m);
  tm.tm_yday = day_of_year;
  const int y = t.year - 1;  // days since 0001-01-01, a Monday
  tm.tm_wday = (y * 365 + y / 4 - y / 100 + y / 400 + day_of_year + 1) % 7;
  return tm;
}

}  // namespace

DateTime DateTime::now() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const std::time_t seconds = std::chrono::duration_cast<std::chrono::seconds>(since_epoch).count();
  const auto micro = std::chrono::duration_cast<std::chrono::microseconds>(since_epoch).count() % 1'000'000;
  std::tm tm = {};
  localtime_r(&seconds, &tm);
  return {tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, static_cast<int>(micro)};
}

DateTime DateTime::parse(std::string_view text) {
  const auto bad = [&]() {
    fail(ErrorCode::kInvalidInput, "\"{}\" is not a date; write 2026-03-04 or 2026-03-04T05:06:07", text);
  };
  size_t i = 0;
  const auto number = [&](size_t digits) {
    int value = 0;
    for (size_t k = 0; k < digits; ++k, ++i) {
      if (i >= text.size() || text[i] < '0' || text[i] > '9') bad();
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  const auto separator = [&](std::string_view any_of) {
    if (i >= text.size() || any_of.find(text[i]) == std::string_view::npos) bad();
    ++i;
  };
  DateTime t;
  t.year = number(4);
  separator("-");
  t.month = number(2);
  separator("-");
  t.day = number(2);
  if (i < text.size()) {
    separator("T ");
    t.hour = number(2);
    separator(":");
    t.minute = number(2);
    if (i < text.size()) {
      separator(":");
      t.second = number(2);
      if (i < text.size()) {
        separator(".");
        const size_t digits = text.size() - i;
        if (digits < 1 || digits > 6) bad();
        t.microsecond = number(digits);
        for (size_t k = digits; k < 6; ++k) t.microsecond *= 10;
      }
    }
  }
  if (i != text.size() || t.year < 1 || t.month < 1 || t.month > 12 || t.day < 1 ||
      t.day > days_in_month(t.year, t.month) || t.hour > 23 || t.minute > 59 || t.second > 59)
    bad();
  return t;
}

std::string DateTime::format(std::string_view format) const {
  std::string adjusted;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      adjusted += format[i];
      continue;
    }
    const char c = format[++i];
    if (c == 'f')
      adjusted += fmt::format("{:06d}", microsecond);
    else if (c != 'z' && c != 'Z')
      adjusted += {'%', c};
  }
  if (adjusted.empty()) return "";
  const std::tm tm = to_tm(*this);
  static const locale_t c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
  adjusted += ' ';  // so that an empty result can be told from a full buffer
  std::string out(adjusted.size() * 4 + 256, '\0');
  const size_t n = strftime_l(out.data(), out.size(), adjusted.c_str(), &tm, c_locale);
  if (n == 0) fail(ErrorCode::kInvalidInput, "the date format \"{}\" gives too much text", format);
  out.resize(n - 1);
  return out;
}

Template Template::parse(std::string_view source, std::string name) {
  try {
    auto parsed = std::make_shared<const ParsedTemplate>(jinja::parse(source));
    return Template(std::move(parsed), std::move(name));
  } catch (const TemplateError& e) {
    throw TemplateError(e.code(), name, e.line(), e.cause());
  }
}

Rendered Template::render(const Value& context, const RenderOptions& options) const {
  PMETAL_ASSERT(context.is(Kind::kDict), "the context of a template is a dict");
  Interpreter interpreter(*parsed_, context, options);
  try {
    return interpreter.render();
  } catch (const Error& e) {
    throw TemplateError(e.code(), name_, interpreter.line(), e.what());
  }
}

bool Template::has_generation() const { return parsed_->has_generation; }

}  // namespace pmetal::text::jinja
