"""Two tiers of tests: `pytest` runs the first alone, tests marked `slow` are run before a release.

Whoever says which tests they want, by a marker, a keyword, a file or a test, gets them of any tier.
"""

import pytest

ALL = "pytest -n 2 -m 'slow or not slow'"
LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config, items):
    """Leave out the slow tests that nobody asked for."""
    chosen = config.option
    if chosen.markexpr or chosen.keyword or getattr(chosen, "lf", False):
        return
    named = [argument for argument in config.args if argument.partition("::")[0].endswith(".py")]
    left_out = [item for item in items if "slow" in item.keywords and not is_named(item, named)]
    if left_out:
        gone = {item.nodeid for item in left_out}
        items[:] = [item for item in items if item.nodeid not in gone]
        config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = len(left_out)
    if hasattr(config, "workeroutput"):  # a process of pytest-xdist, each of which collects all tests
        config.workeroutput["left_out"] = len(left_out)


def is_named(item, named):
    """Whether one of these arguments, files or tests, names the test."""
    test = item.nodeid.partition("::")[2]
    for argument in named:
        file, _, inside = argument.partition("::")
        is_inside = inside in ("", test) or test.startswith((f"{inside}[", f"{inside}::"))
        if is_inside and (item.config.invocation_params.dir / file).resolve() == item.path.resolve():
            return True
    return False


def mostly_slow(values, every):
    """Return the parameters of which the first tier tries each `every`th only, from the first on."""
    values = [value if isinstance(value, tuple) else (value,) for value in values]
    marks = [[pytest.mark.slow] if number % every else [] for number in range(len(values))]
    return [pytest.param(*value, marks=mark) for value, mark in zip(values, marks, strict=True)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Note what a process of pytest-xdist has left out."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter, config):
    """Say how many tests were left out, and how to run them."""
    count = config.stash.get(LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(f"{count} slow tests were left out; run all: {ALL}")
