pmetal_table(quant formats . format_)
