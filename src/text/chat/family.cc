#include "text/chat/family.h"

#include "text/template/unicode.h"

namespace pmetal::text::chat {

#define X(stem) extern const Family family_##stem;
#include "text/chat_families.inc"
#undef X

const char* const kContentMacro = R"({%- macro text(content) -%}
  {%- if content is string -%}{{- content -}}
  {%- elif content is iterable and content is not none -%}
    {%- for part in content -%}
      {%- if part is string -%}{{- part -}}
      {%- elif part.type == 'text' -%}{{- part.text -}}
      {%- elif part.type in ['image', 'image_url'] -%}{{- '<image>' -}}
      {%- elif part.type in ['audio', 'input_audio'] -%}{{- '<audio>' -}}
      {%- else -%}{{- raise_exception('content parts of type ' ~ part.type ~ ' cannot be written in this chat format') -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
)";

std::span<const Family* const> all_families() {
  static constexpr const Family* kFamilies[] = {
#define X(stem) &family_##stem,
#include "text/chat_families.inc"
#undef X
  };
  return kFamilies;
}

const Family* find_family(std::string_view name) {
  for (const Family* family : all_families())
    if (name == family->name) return family;
  return nullptr;
}

const Family* detect_by_template(std::string_view source) {
  const Family* best = nullptr;
  size_t best_size = 0;
  for (const Family* family : all_families()) {
    size_t size = 0;
    bool fits = true;
    for (const std::string_view marker : family->markers) {
      fits &= source.find(marker) != std::string_view::npos;
      size += marker.size();
    }
    if (fits && size > best_size) {
      best = family;
      best_size = size;
    }
  }
  return best;
}

const Family* detect_by_model_name(std::string_view name) {
  const std::string folded = jinja::unicode::lower(name);
  const Family* best = nullptr;
  size_t best_size = 0;
  for (const Family* family : all_families()) {
    for (const std::string_view part : family->models) {
      if (part.size() <= best_size || folded.find(part) == std::string::npos) continue;
      best = family;
      best_size = part.size();
    }
  }
  return best;
}

}  // namespace pmetal::text::chat
