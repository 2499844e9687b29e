"""Released weights under our names: pure tables, one file a family."""
