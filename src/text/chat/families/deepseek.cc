// DeepSeek V3 and R1: <｜User｜> and <｜Assistant｜>; earlier reasoning is left out.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_deepseek;
const Family family_deepseek = {
    .name = "deepseek",
    .source = R"jinja({{- bos_token -}}
{%- for message in messages if message.role == 'system' -%}
  {%- if not loop.first -%}{{- '\n\n' -}}{%- endif -%}{{- text(message.content) -}}
{%- endfor -%}
{%- for message in messages if message.role != 'system' -%}
  {%- if message.role == 'assistant' -%}
    {{- '<｜Assistant｜>' + text(message.content).split('</think>')[-1] + eos_token -}}
  {%- else -%}
    {{- '<｜User｜>' + text(message.content) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}
)jinja",
    .markers = {"<｜User｜>", "<｜Assistant｜>"},
    .models = {"deepseek"},
    .bos_token = "<｜begin▁of▁sentence｜>",
    .eos_token = "<｜end▁of▁sentence｜>",
    .parser = "deepseek_v3",
};

}  // namespace pmetal::text::chat
