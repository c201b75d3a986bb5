"""Ranks: the processes of one run, how they are started and what they exchange."""
