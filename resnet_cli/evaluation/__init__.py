"""Evaluation of a trained run: metrics on a split, with confidence intervals, and the files that hold them."""
