// Phi 3 and 3.5: <|role|>, text, <|end|>.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_phi3;
const Family family_phi3 = {
    .name = "phi3",
    .source = R"jinja({%- for message in messages -%}
  {{- '<|' + message.role + '|>\n' + text(message.content) + '<|end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}
)jinja",
    .markers = {"<|user|>", "<|assistant|>", "<|end|>"},
    .models = {"phi-3", "phi3", "phi-4-mini"},
    .bos_token = "",
    .eos_token = "<|end|>",
    .parser = "functools",
};

}  // namespace pmetal::text::chat
