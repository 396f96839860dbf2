// Llama 2: [INST] … [/INST], the system text inside the first user turn.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_llama2;
const Family family_llama2 = {
    .name = "llama2",
    .source = R"jinja({%- set ns = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message.role in ['system', 'developer'] -%}
    {%- set ns.system = '<<SYS>>\n' + text(message.content) + '\n<</SYS>>\n\n' -%}
  {%- elif message.role == 'user' -%}
    {{- bos_token + '[INST] ' + ns.system + text(message.content)|trim + ' [/INST]' -}}
    {%- set ns.system = '' -%}
  {%- else -%}
    {{- ' ' + text(message.content)|trim + ' ' + eos_token -}}
  {%- endif -%}
{%- endfor -%}
)jinja",
    .markers = {"[INST]", "<<SYS>>"},
    .models = {"llama-2", "llama2", "codellama"},
    .bos_token = "<s>",
    .eos_token = "</s>",
    .parser = "plain",
};

}  // namespace pmetal::text::chat
