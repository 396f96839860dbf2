// ChatML: every turn between <|im_start|>role and <|im_end|>.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_chatml;
const Family family_chatml = {
    .name = "chatml",
    .source = R"jinja({%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '\n' + text(message.content) + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
)jinja",
    .markers = {"<|im_start|>", "<|im_end|>"},
    .models = {"chatml", "hermes", "openchat", "yi-", "smollm", "internlm"},
    .bos_token = "",
    .eos_token = "<|im_end|>",
    .parser = "hermes",
};

}  // namespace pmetal::text::chat
