"""Searches: sweeps whose values Optuna chooses by the results of earlier jobs."""
