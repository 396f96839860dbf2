// YAML job files to and from nlohmann::ordered_json, so that YAML and JSON go through the same option descriptions.
// Plain scalars are typed by the YAML 1.2 core schema (null, true/false, integers, floats with .inf and .nan; `yes`,
// `on` and 12:30 are strings); quoted scalars and block scalars are strings; tags !!str !!int !!float !!bool !!null
// are honoured. Anchors and aliases work; each use of an alias is a copy and counts against a budget.
// Refused with Error(kInvalidInput) "<source>:<line>:<column>: …": several documents, repeated keys, keys that are not
// scalars, merge keys (<<), other tags, aliases to an unfinished anchor, text that is not UTF-8, anything too deep or
// too large. An empty document is null.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace pmetal::formats {

nlohmann::ordered_json parse_yaml(std::string_view text, const std::string& source);
nlohmann::ordered_json read_yaml(const std::filesystem::path& path);

// Block style, two spaces a level, a newline at the end; parse_yaml reads the same value back, doubles to the bit.
// Invalid UTF-8 is written as U+FFFD.
std::string dump_yaml(const nlohmann::ordered_json& value);

}  // namespace pmetal::formats
