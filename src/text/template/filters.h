// The filters of jinja2 3.1, with tojson as transformers defines it.
#pragma once

#include <string_view>

#include "text/template/ast.h"

namespace pmetal::text::jinja {

FilterFunction find_filter(std::string_view name);  // nullptr when there is none

// one row of a filter table; the tables of the filters_*.cc files make up the whole
struct FilterEntry {
  const char* name;
  FilterFunction function;
};
struct FilterTable {
  const FilterEntry* begin;
  const FilterEntry* end;
};
FilterTable text_filters();      // filters_text.cc
FilterTable sequence_filters();  // filters_sequence.cc
FilterTable markup_filters();    // filters_markup.cc

}  // namespace pmetal::text::jinja
