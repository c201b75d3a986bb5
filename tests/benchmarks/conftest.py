"""What the tests of the measuring programs share."""

import importlib
import sys

import pytest


@pytest.fixture
def load_program(repository, monkeypatch):
    """Import a program of benchmarks/ afresh; what it imports from there is forgotten at the end of the test."""
    folder = repository / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield importlib.import_module
    for file in folder.glob("*.py"):
        sys.modules.pop(file.stem, None)
