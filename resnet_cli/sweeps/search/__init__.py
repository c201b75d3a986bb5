"""Sweeps that choose values as they go, with Optuna."""
