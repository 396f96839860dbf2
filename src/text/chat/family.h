// Families of chat formats: for models that bring no template of their own (`source`), and for knowing which format a
// template writes (`markers`), hence how answers in it are read. One file per family under families/.
#pragma once

#include <span>
#include <string_view>

namespace pmetal::text::chat {

struct Family {
  const char* name;             // as users write it
  const char* source;           // Jinja; the macro `text(content)` of kContentMacro stands before it
  std::string_view markers[4];  // a template with all of these writes this family ("" = none); longest list wins
  std::string_view models[6];   // lower-case parts of model names and model types that mean this family
  const char* bos_token;        // for templates that use them and tokenizers that do not say
  const char* eos_token;
  const char* parser;  // stem of the output parser (parsers/)
};

std::span<const Family* const> all_families();
const Family* find_family(std::string_view name);           // nullptr when there is none
const Family* detect_by_template(std::string_view source);  // nullptr when no markers fit
const Family* detect_by_model_name(std::string_view name);  // the longest matching part of a name wins

// text(content): a string as it is, the text parts of a list joined, images and sounds as their usual placeholders
extern const char* const kContentMacro;

}  // namespace pmetal::text::chat
