"""From a data set and a time budget to a config with a reason beside each value. `rules.yaml` has the rules."""
