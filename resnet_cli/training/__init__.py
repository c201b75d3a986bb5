"""The training loop: step, state, devices, metrics."""
