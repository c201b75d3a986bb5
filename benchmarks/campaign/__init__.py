"""The fault campaign: what machines and people do to runs, one module for each letter of its table."""
