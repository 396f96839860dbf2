// gpt-oss: the harmony format of messages with channels.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_gpt_oss;
const Family family_gpt_oss = {
    .name = "gpt-oss",
    .source =
        R"jinja({{- '<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: ' + strftime_now('%Y-%m-%d') + '\n\nReasoning: ' + (reasoning_effort or 'medium') + '\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>' -}}
{%- for message in messages -%}
  {%- set is_last = loop.last -%}
  {%- if message.role in ['system', 'developer'] -%}
    {{- '<|start|>developer<|message|># Instructions\n\n' + text(message.content) + '<|end|>' -}}
  {%- elif message.role == 'assistant' -%}
    {%- for call in message.tool_calls or [] -%}
      {%- set function = call.function or call -%}
      {{- '<|start|>assistant to=functions.' + function.name + '<|channel|>commentary json<|message|>' -}}
      {{- function.arguments if function.arguments is string else function.arguments|tojson -}}
      {{- '<|call|>' -}}
    {%- else -%}
      {{- '<|start|>assistant<|channel|>final<|message|>' + text(message.content) + ('<|return|>' if is_last and not add_generation_prompt else '<|end|>') -}}
    {%- endfor -%}
  {%- elif message.role == 'tool' -%}
    {{- '<|start|>functions.' + (message.name or 'tool') + ' to=assistant<|channel|>commentary<|message|>' + text(message.content)|tojson + '<|end|>' -}}
  {%- else -%}
    {{- '<|start|>' + message.role + '<|message|>' + text(message.content) + '<|end|>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}
)jinja",
    .markers = {"<|start|>", "<|channel|>", "<|message|>"},
    .models = {"gpt-oss", "gpt_oss"},
    .bos_token = "<|startoftext|>",
    .eos_token = "<|return|>",
    .parser = "gpt_oss",
};

}  // namespace pmetal::text::chat
