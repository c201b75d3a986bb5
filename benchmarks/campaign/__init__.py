"""The fault campaign: faults of machines and mistakes of users, one module for each letter of its table."""
