// Vicuna 1.1: USER: and ASSISTANT: on one line.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_vicuna;
const Family family_vicuna = {
    .name = "vicuna",
    .source = R"jinja({%- for message in messages -%}
  {%- if message.role == 'system' -%}{{- text(message.content) + ' ' -}}
  {%- elif message.role == 'assistant' -%}{{- 'ASSISTANT: ' + text(message.content) + eos_token -}}
  {%- else -%}{{- 'USER: ' + text(message.content) + ' ' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
)jinja",
    .markers = {"USER:", "ASSISTANT:"},
    .models = {"vicuna"},
    .bos_token = "<s>",
    .eos_token = "</s>",
    .parser = "plain",
};

}  // namespace pmetal::text::chat
