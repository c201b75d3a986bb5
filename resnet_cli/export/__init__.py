"""Export: a trained run with its preprocessing as one file, which is compared with the run before it is kept."""
