pmetal_table(text chat_families chat/families family_)
pmetal_table(text output_parsers chat/parsers parser_)
