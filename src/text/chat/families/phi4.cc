// Phi 4: ChatML with a separator token and without newlines.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_phi4;
const Family family_phi4 = {
    .name = "phi4",
    .source = R"jinja({%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '<|im_sep|>' + text(message.content) + '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|im_sep|>' -}}{%- endif -%}
)jinja",
    .markers = {"<|im_start|>", "<|im_sep|>", "<|im_end|>"},
    .models = {"phi-4", "phi4"},
    .bos_token = "",
    .eos_token = "<|im_end|>",
    .parser = "hermes",
};

}  // namespace pmetal::text::chat
