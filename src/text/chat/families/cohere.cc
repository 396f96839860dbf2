// Cohere Command: turns between START_OF_TURN and END_OF_TURN tokens.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_cohere;
const Family family_cohere = {
    .name = "cohere",
    .source = R"jinja({{- bos_token -}}
{%- for message in messages -%}
  {%- set role = {'system': 'SYSTEM', 'developer': 'SYSTEM', 'user': 'USER', 'tool': 'SYSTEM', 'assistant': 'CHATBOT'}[message.role] -%}
  {{- '<|START_OF_TURN_TOKEN|><|' + role + '_TOKEN|>' + text(message.content)|trim + '<|END_OF_TURN_TOKEN|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' -}}{%- endif -%}
)jinja",
    .markers = {"<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"},
    .models = {"cohere", "command-r", "command-a", "aya"},
    .bos_token = "<BOS_TOKEN>",
    .eos_token = "<|END_OF_TURN_TOKEN|>",
    .parser = "cohere",
};

}  // namespace pmetal::text::chat
