// Qwen 2.5 and 3: ChatML with tools and calls as JSON between tags.
#include "text/chat/family.h"

namespace pmetal::text::chat {

extern const Family family_qwen;
const Family family_qwen = {
    .name = "qwen",
    .source = R"jinja({%- set first = 1 if messages and messages[0].role == 'system' else 0 -%}
{%- if tools -%}
  {{- '<|im_start|>system\n' -}}
  {%- if first -%}{{- text(messages[0].content) + '\n\n' -}}{%- endif -%}
  {{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>' -}}
  {%- for tool in tools -%}{{- '\n' + tool|tojson -}}{%- endfor -%}
  {{- '\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n' -}}
{%- elif first -%}
  {{- '<|im_start|>system\n' + text(messages[0].content) + '<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages[first:] -%}
  {%- if message.role == 'tool' -%}
    {%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
    {{- '\n<tool_response>\n' + text(message.content) + '\n</tool_response>' -}}
    {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\n' -}}{%- endif -%}
  {%- else -%}
    {{- '<|im_start|>' + message.role + '\n' -}}
    {%- if message.role == 'assistant' and message.reasoning_content -%}
      {{- '<think>\n' + message.reasoning_content.strip('\n') + '\n</think>\n\n' -}}
    {%- endif -%}
    {{- text(message.content) -}}
    {%- for call in message.tool_calls or [] -%}
      {%- set function = call.function or call -%}
      {%- if text(message.content) or not loop.first -%}{{- '\n' -}}{%- endif -%}
      {{- '<tool_call>\n{"name": "' + function.name + '", "arguments": ' -}}
      {{- function.arguments if function.arguments is string else function.arguments|tojson -}}
      {{- '}\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
  {%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}
)jinja",
    .markers = {"<|im_start|>", "<tool_call>", "<tool_response>"},
    .models = {"qwen", "qwq"},
    .bos_token = "",
    .eos_token = "<|im_end|>",
    .parser = "hermes",
};

}  // namespace pmetal::text::chat
