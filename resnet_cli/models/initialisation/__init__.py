"""Weight initialisation by name."""
