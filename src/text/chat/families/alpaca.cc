// Alpaca: headings in plain text.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_alpaca;
const Family family_alpaca = {
    .name = "alpaca",
    .source = R"jinja({%- for message in messages -%}
  {%- if message.role == 'system' -%}{{- text(message.content) + '\n\n' -}}
  {%- elif message.role == 'user' -%}{{- '### Instruction:\n' + text(message.content) + '\n\n' -}}
  {%- elif message.role == 'assistant' -%}{{- '### Response:\n' + text(message.content) + eos_token + '\n\n' -}}
  {%- else -%}{{- '### Input:\n' + text(message.content) + '\n\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\n' -}}{%- endif -%}
)jinja",
    .markers = {"### Instruction:", "### Response:"},
    .models = {"alpaca"},
    .bos_token = "<s>",
    .eos_token = "</s>",
    .parser = "plain",
};

}  // namespace pmetal::text::chat
