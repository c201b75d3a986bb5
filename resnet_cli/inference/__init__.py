"""Inference: images of any kind through the preprocessing and the net of a trained run."""
