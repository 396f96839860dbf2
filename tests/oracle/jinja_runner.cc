// Renders JSON lines {"template", "context"?, "now"?} from standard input and writes {"text", "spans"?} or {"error"}
// for each; tests/oracle/jinja.py compares that with python3-jinja2.
#include <iostream>
#include <string>

#include "base/error.h"
#include "text/template/json.h"
#include "text/template/template.h"

namespace jinja = pmetal::text::jinja;

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    auto answer = std::make_shared<jinja::DictObject>();
    try {
      const jinja::Value request = jinja::parse_json(line);
      const jinja::DictObject& fields = request.dict();
      const jinja::Value* now = fields.find("now");
      const jinja::Value* context = fields.find("context");
      jinja::RenderOptions options;
      if (now) options.now = jinja::DateTime::parse(now->text());
      const auto parsed = jinja::Template::parse(fields.find("template")->text());
      const auto rendered =
          parsed.render(context ? *context : jinja::Value::dict(std::make_shared<jinja::DictObject>()), options);
      answer->set("text", jinja::Value::string(rendered.text));
      if (parsed.has_generation()) {
        std::vector<jinja::Value> spans;
        for (const jinja::Span& span : rendered.generation)
          spans.push_back(jinja::Value::string(rendered.text.substr(span.begin, span.end - span.begin)));
        answer->set("spans", jinja::Value::list(std::move(spans)));
      }
    } catch (const pmetal::Error& e) {
      answer->set("error", jinja::Value::string(e.what()));
    }
    std::cout << jinja::to_json(jinja::Value::dict(answer)) << "\n" << std::flush;
  }
  return 0;
}
