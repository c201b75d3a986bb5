"""Export: a trained run as one file with its preprocessing, checked against the run before it is kept."""
