// Zephyr: <|role|>, text, end-of-sequence token.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_zephyr;
const Family family_zephyr = {
    .name = "zephyr",
    .source = R"jinja({%- for message in messages -%}
  {{- '<|' + message.role + '|>\n' + text(message.content) + eos_token + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}
)jinja",
    .markers = {"<|user|>", "<|assistant|>"},
    .models = {"zephyr", "tinyllama", "stablelm-zephyr"},
    .bos_token = "<s>",
    .eos_token = "</s>",
    .parser = "plain",
};

}  // namespace pmetal::text::chat
