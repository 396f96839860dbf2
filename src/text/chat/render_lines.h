// The core of `pmetal text render`: one conversation as a JSON line in, one line out.
#pragma once

#include <string>
#include <string_view>

#include "text/chat/chat.h"

namespace pmetal::text::chat {

// `line`: {"messages", "tools"?, "documents"?, "add_generation_prompt"?, "continue_final_message"? (true or a field),
// "extra"?, "special_tokens"?, "now"?}; other keys ("id") are ignored. Answer: {"text": …} or {"error": …}, without the
// newline; never throws for what the line or the template does. An error of the template is the reference's message;
// "line" beside it says where in the template.
std::string render_line(const ChatTemplate& chat, std::string_view line);
// the answer for a template that cannot be parsed, whatever the line
std::string error_line(const Error& error);

}  // namespace pmetal::text::chat
