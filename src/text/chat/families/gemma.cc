// Gemma 1 to 3: user and model turns; the system text before the next user text.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_gemma;
const Family family_gemma = {
    .name = "gemma",
    .source = R"jinja({{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message.role in ['system', 'developer'] -%}
    {%- set ns.system = text(message.content) + '\n\n' -%}
  {%- elif message.role == 'user' -%}
    {{- '<start_of_turn>user\n' + ns.system + text(message.content)|trim + '<end_of_turn>\n' -}}
    {%- set ns.system = '' -%}
  {%- else -%}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' + text(message.content)|trim + '<end_of_turn>\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%}
)jinja",
    .markers = {"<start_of_turn>", "<end_of_turn>"},
    .models = {"gemma"},
    .bos_token = "<bos>",
    .eos_token = "<end_of_turn>",
    .parser = "plain",
};

}  // namespace pmetal::text::chat
