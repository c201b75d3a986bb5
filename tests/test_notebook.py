"""The teaching notebook is a valid notebook with its outputs, runs from top to bottom, and says what it computes."""

import contextlib
import io
import json
import re
import shlex

import matplotlib
import pytest
import torch

from tests.support.settings import problems_of, settings_of

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def notebook(repository):
    return json.loads((repository / "docs" / "residual_networks.ipynb").read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def test_is_a_notebook_of_format_4_5(notebook):
    """The rules of nbformat's schema for the kinds of cells and outputs that are here."""
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ids)
    for cell in notebook["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        keys |= {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert set(cell) == keys
        assert cell["cell_type"] in ("code", "markdown")
        assert all(isinstance(line, str) for line in cell["source"])
        for output in cell.get("outputs", []):
            allowed = {"stream": {"name", "text"}, "display_data": {"data", "metadata"}}[output["output_type"]]
            assert set(output) == allowed | {"output_type"}


def test_was_run_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        source = "".join(cell["source"])
        assert bool(printed(cell)) == ("print(" in source)
        assert pictures(cell) == source.count("plt.subplots(")


def test_is_small_and_names_no_machine(repository):
    text = (repository / "docs" / "residual_networks.ipynb").read_text(encoding="utf-8")
    assert len(text) < 400_000
    assert not re.search(r"/(home|root|tmp|work|Users)/|images/s|\d+(\.\d+)? seconds", text)


@pytest.mark.slow
def test_runs_and_prints_what_it_shows(notebook, monkeypatch, tmp_path):
    """Every cell in one namespace; its assertions hold. Cells marked `exact` print what is stored, to the letter."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    namespace = {}
    try:
        with matplotlib.rc_context(), torch.random.fork_rng(devices=[]):
            for number, cell in enumerate(code_cells(notebook), start=1):
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile("".join(cell["source"]), f"<cell {number}>", "exec"), namespace)
                assert bool(out.getvalue()) == bool(printed(cell)), number
                if "exact" in cell["metadata"].get("tags", []):
                    assert out.getvalue() == printed(cell), number
                assert len(plt.get_fignums()) == pictures(cell), number
                plt.close("all")
    finally:
        plt.close("all")
        torch.set_num_threads(threads)
    assert list(tmp_path.iterdir()) == []


def test_its_commands_are_accepted(notebook):
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    lines = re.findall(r"^    (resnet-(?:train|info) .*)", text, re.MULTILINE)
    lines += re.findall(r"`(resnet-(?:train|info) .*?)`", text)
    assert len(lines) >= 6
    for line in lines:
        overrides = [word for word in shlex.split(line)[1:] if not word.startswith("-")]
        first = [word if "[" in word else word.split(",")[0] for word in overrides]  # of a sweep, the first job
        assert problems_of(settings_of(*first)) == [], line
