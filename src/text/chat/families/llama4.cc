// Llama 4: as Llama 3 with shorter tags; calls are a list in Python syntax.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_llama4;
const Family family_llama4 = {
    .name = "llama4",
    .source = R"jinja({{- bos_token -}}
{%- for message in messages -%}
  {%- set role = 'ipython' if message.role == 'tool' else message.role -%}
  {{- '<|header_start|>' + role + '<|header_end|>\n\n' -}}
  {%- if message.tool_calls -%}
    {{- '[' -}}
    {%- for call in message.tool_calls -%}
      {%- set function = call.function or call -%}
      {%- if function.arguments is string -%}
        {{- raise_exception('this chat format needs the arguments of tool calls as an object, not as text') -}}
      {%- endif -%}
      {%- if not loop.first -%}{{- ', ' -}}{%- endif -%}
      {{- function.name + '(' -}}
      {%- for key, value in function.arguments.items() -%}
        {{- key + '=' + (value|string if value is boolean or value is none else value|tojson) -}}
        {%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
      {%- endfor -%}
      {{- ')' -}}
    {%- endfor -%}
    {{- ']' -}}
  {%- else -%}
    {{- text(message.content)|trim -}}
    {%- if tools and loop.first -%}
      {{- '\n\nYou may call these functions. Answer with [name(argument=value)] to call one.\n' -}}
      {%- for tool in tools -%}{{- '\n' + tool|tojson -}}{%- endfor -%}
    {%- endif -%}
  {%- endif -%}
  {{- '<|eot|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|header_start|>assistant<|header_end|>\n\n' -}}{%- endif -%}
)jinja",
    .markers = {"<|header_start|>", "<|eot|>"},
    .models = {"llama-4", "llama4"},
    .bos_token = "<|begin_of_text|>",
    .eos_token = "<|eot|>",
    .parser = "pythonic",
};

}  // namespace pmetal::text::chat
