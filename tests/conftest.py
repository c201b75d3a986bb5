"""Shared fixtures: one thread, so that tests run side by side without fighting over cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
