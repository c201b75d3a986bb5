"""One run from its config to its test result."""
