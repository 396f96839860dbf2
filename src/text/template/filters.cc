#include "text/template/filters.h"

namespace pmetal::text::jinja {

FilterFunction find_filter(std::string_view name) {
  for (const FilterTable& table : {text_filters(), sequence_filters(), markup_filters()})
    for (const FilterEntry* entry = table.begin; entry != table.end; ++entry)
      if (name == entry->name) return entry->function;
  return nullptr;
}

}  // namespace pmetal::text::jinja
