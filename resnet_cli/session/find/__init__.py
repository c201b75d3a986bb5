"""`find=lr` and `find=batch_size`: settings found by trying them, before a run."""
