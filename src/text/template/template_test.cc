#include "text/template/template.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/template/json.h"

namespace pmetal::text::jinja {
namespace {

std::string render(std::string_view source, std::string_view context = "{}", const Limits& limits = {}) {
  RenderOptions options{.now = {2026, 3, 4, 5, 6, 7}, .limits = limits};
  return Template::parse(source).render(parse_json(context), options).text;
}

std::string error_of(std::string_view source, std::string_view context = "{}", const Limits& limits = {}) {
  try {
    return "no error: " + render(source, context, limits);
  } catch (const Error& e) {
    return e.what();
  }
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(Template, blocks_take_their_line_and_variables_keep_it) {
  EXPECT_EQ(render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(render("a\n  {{ 1 }}\nb"), "a\n  1\nb");
  EXPECT_EQ(render("a  {%- if true -%}  b  {%- endif +%}\nc"), "ab\nc");
}

TEST(Template, generation_blocks_are_reported_in_bytes) {
  const Template t =
      Template::parse("é{% generation %}ü{{ 1 }}{% endgeneration %}x{% generation %}{% endgeneration %}");
  const Rendered r = t.render(parse_json("{}"), {});
  EXPECT_EQ(r.text, "éü1x");
  EXPECT_TRUE(t.has_generation());
  EXPECT_EQ(r.generation, (std::vector<Span>{{2, 5}, {6, 6}}));
  const auto spans = [](const char* source) {
    return Template::parse(source).render(Value::dict(std::make_shared<DictObject>()), {}).generation;
  };
  // in macros and captured text: where the text comes to stand
  EXPECT_EQ(spans("{% macro m() %}ab{% generation %}é{% endgeneration %}{% endmacro %}é{{ m() }}{{ m() }}"),
            (std::vector<Span>{{4, 6}, {8, 10}}));
  EXPECT_EQ(spans("{% set x %}{% generation %}ab{% endgeneration %}{% endset %}é{{ x }}"), (std::vector<Span>{{2, 4}}));
  EXPECT_EQ(spans("{% set x %}{% generation %}ab{% endgeneration %}{% endset %}é"), std::vector<Span>());
  EXPECT_EQ(spans("é{% filter upper %}{% generation %}ab{% endgeneration %}{% endfilter %}"), std::vector<Span>());
}

TEST(Template, the_clock_is_given) {
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y %H:%M:%S|%A|%j|%f%z') }}"), "04 Mar 2026 05:06:07|Wednesday|063|000000");
}

TEST(Template, errors_name_the_template_and_the_line) {
  EXPECT_EQ(error_of("\n\n{{ raise_exception('no') }}"), "chat template: line 3: no");
  EXPECT_TRUE(has(error_of("\n{% endif %}"), "line 2"));
}

TEST(Template, the_sandbox_hides_python_and_keeps_lists_as_they_are) {
  EXPECT_EQ(render("{{ ''.__class__ }}|{{ x._private }}", R"({"x": {"_private": 1}})"), "|1");
  EXPECT_EQ(render("{{ x.__class__ }}|{{ x|attr('__nope__') }}", "{}"), "|");
  EXPECT_TRUE(has(error_of("{{ x.__nope__ }}"), "'x' is undefined"));
  EXPECT_TRUE(has(error_of("{{ ''.__class__.__mro__ }}"), "unsafe"));
  EXPECT_TRUE(has(error_of("{{ [].append(1) }}"), "access to attribute 'append' of 'list' object is unsafe."));
  EXPECT_TRUE(has(error_of("{{ {}.update({}) }}"), "unsafe"));
  EXPECT_TRUE(has(error_of("{% include 'x' %}"), "not available"));
  EXPECT_TRUE(has(error_of("{{ '{0.__class__.__mro__}'.format(1) }}"), "unsafe"));
}

TEST(Template, budgets_stop_runaway_templates) {
  const Limits small{.steps = 10'000, .output_bytes = 1000, .scratch_bytes = 100'000};
  EXPECT_TRUE(has(error_of("{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}", "{}", small),
                  "10000 steps"));
  EXPECT_TRUE(has(error_of("{{ 'x' * 2000 }}", "{}", small), "1000 bytes"));
  EXPECT_TRUE(has(error_of("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
                           "{% endfor %}",
                           "{}", small),
                  "bytes"));
  EXPECT_TRUE(has(error_of("{{ range(100001) }}"), "Range too big"));
  EXPECT_TRUE(has(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), "deep"));
  EXPECT_TRUE(
      has(error_of("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}"),
          "nested"));
  EXPECT_TRUE(has(error_of("{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}"
                           "{% endfor %}{{ ns.x }}"),
                  "elements"));
  EXPECT_TRUE(has(error_of("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"), "deep"));
}

TEST(Template, half_a_surrogate_pair_is_refused) {
  EXPECT_TRUE(has(error_of("{{ '\\ud800' }}"), "surrogate"));
  EXPECT_EQ(render("{{ 'x http://a.de'|urlize(rel='me you') }}"),
            "x <a href=\"http://a.de\" rel=\"me noopener you\">http://a.de</a>");
}

TEST(Template, a_namespace_may_hold_itself) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns.me[0].me is sequence }}"), "True");
  EXPECT_TRUE(has(error_of("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}"), "contains itself"));
}

TEST(Template, whole_numbers_of_any_size_pass_through) {
  EXPECT_EQ(render("{{ x }} {{ x|tojson }} {{ x == y }} {{ x is integer }}",
                   R"({"x": 123456789012345678901234567890, "y": 123456789012345678901234567890})"),
            "123456789012345678901234567890 123456789012345678901234567890 True True");
  EXPECT_TRUE(has(error_of("{{ 9223372036854775807 + 1 }}"), "64 bits"));
}

TEST(Template, unknown_filters_are_refused_before_anything_runs_unless_a_branch_hides_them) {
  EXPECT_TRUE(has(error_of("{{ 1|nope }}"), "No filter named 'nope'"));
  EXPECT_EQ(render("{% if false %}{{ 1|nope }}{% endif %}x"), "x");
  EXPECT_TRUE(has(error_of("{% if false %}{% for i in x %}{{ 1|nope }}{% endfor %}{% endif %}x"), "nope"));
}

}  // namespace
}  // namespace pmetal::text::jinja
