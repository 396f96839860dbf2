// Mistral: [INST] … [/INST] without spaces, the system text before the next user text.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_mistral;
const Family family_mistral = {
    .name = "mistral",
    .source = R"jinja({{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message.role in ['system', 'developer'] -%}
    {%- set ns.system = text(message.content) + '\n\n' -%}
  {%- elif message.role == 'user' -%}
    {{- '[INST]' + ns.system + text(message.content) + '[/INST]' -}}
    {%- set ns.system = '' -%}
  {%- else -%}
    {{- text(message.content) + eos_token -}}
  {%- endif -%}
{%- endfor -%}
)jinja",
    .markers = {"[INST]", "[/INST]"},
    .models = {"mistral", "mixtral", "devstral", "ministral", "magistral", "codestral"},
    .bos_token = "<s>",
    .eos_token = "</s>",
    .parser = "mistral",
};

}  // namespace pmetal::text::chat
