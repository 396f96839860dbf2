pmetal_table(models families . family_)
