// Gemma 4: <|turn>role … <turn|>, reasoning in a thought channel.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_gemma4;
const Family family_gemma4 = {
    .name = "gemma4",
    .source = R"jinja({{- bos_token -}}
{%- set thinks = enable_thinking is defined and enable_thinking -%}
{%- if thinks and (not messages or messages[0].role not in ['system', 'developer']) -%}{{- '<|turn>system\n<|think|><turn|>\n' -}}{%- endif -%}
{%- for message in messages -%}
  {%- set role = {'assistant': 'model', 'developer': 'system'}.get(message.role, message.role) -%}
  {{- '<|turn>' + role + '\n' -}}
  {%- if thinks and loop.first and role == 'system' -%}{{- '<|think|>' -}}{%- endif -%}
  {{- text(message.content)|trim -}}
  {{- '<turn|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\n' -}}{%- endif -%}
)jinja",
    .markers = {"<|turn>", "<turn|>"},
    .models = {"gemma-4", "gemma4"},
    .bos_token = "<bos>",
    .eos_token = "<turn|>",
    .parser = "gemma4",
};

}  // namespace pmetal::text::chat
