"""Plan a config for a data set and a time budget, with a reason for each value, by the rules in `rules.yaml`."""
