// Llama 3, 3.1, 3.2 and 3.3: roles between header tags, turns end with <|eot_id|>.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_llama3;
const Family family_llama3 = {
    .name = "llama3",
    .source = R"jinja({{- bos_token -}}
{%- for message in messages -%}
  {%- set role = 'ipython' if message.role == 'tool' else message.role -%}
  {{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' -}}
  {%- if message.tool_calls -%}
    {%- for call in message.tool_calls -%}
      {%- set function = call.function or call -%}
      {%- if not loop.first -%}{{- '; ' -}}{%- endif -%}
      {{- '{"name": "' + function.name + '", "parameters": ' -}}
      {{- function.arguments if function.arguments is string else function.arguments|tojson -}}
      {{- '}' -}}
    {%- endfor -%}
  {%- else -%}
    {{- text(message.content)|trim -}}
    {%- if tools and loop.first -%}
      {{- '\n\nYou may call these functions. Answer with {"name": function name, "parameters": {...}} to call one.\n' -}}
      {%- for tool in tools -%}{{- '\n' + tool|tojson -}}{%- endfor -%}
    {%- endif -%}
  {%- endif -%}
  {{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}
)jinja",
    .markers = {"<|start_header_id|>", "<|eot_id|>"},
    .models = {"llama-3", "llama3", "meta-llama-3"},
    .bos_token = "<|begin_of_text|>",
    .eos_token = "<|eot_id|>",
    .parser = "llama3",
};

}  // namespace pmetal::text::chat
