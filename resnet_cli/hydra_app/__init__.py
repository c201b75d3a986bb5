"""Everything that knows Hydra: composing configs, overrides, search paths, errors, versions."""
