"""Data sets by name: each function returns a `Dataset`."""
