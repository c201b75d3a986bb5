"""Each command of the documentation is run here, or accepted by what reads it, or its block says why it is not run."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path

import numpy
import pytest
from PIL import Image

from resnet_cli.commands.train.main import run as train
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import compose_settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/[!_]*/*.md")), *sorted(ROOT.glob("docs/*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MARK = re.compile(r"<!-- not run: (network|GPU|cluster|long|needs [\w ]+) -->\s*$")
OTHER_PROGRAMS = ("pip", "git", "python", "ray", "srun", "torchrun", "sbatch", "ssh", "find", "cd", "nox", "eval")
START = ["first_run", "own_images", "sweep", "resume"]
TINY = ["data=synthetic", "data.image_size=8", "data.count=64", "data.test_count=16", "data.classes=2"]
SHORT = ["trainer.max_batches=2", "trainer.epochs=1"]


def blocks(text):
    """Yield each indented block of a page, with the text in front of it."""
    for found in re.finditer(r"(?<=\n\n)((?: {4}.*\n|\n(?= {4}))+)", text):
        yield text[: found.start()], found[1].replace("\\\n", " ")


def lines_with(text, program):
    """Return the arguments of each line that starts a program, and whether its block is marked as not run."""
    for before, block in blocks(text):
        for line in block.splitlines():
            found = re.match(rf"^ {{4}}(?:\$ |pip install .* && |.*\| )?({program})(?= |$)(.*)$", line)
            if found:
                yield found[1], found[2], bool(MARK.search(before))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_companion_commands_are_accepted(page):
    for program, rest, _ in lines_with(page.read_text(encoding="utf-8"), r"resnet-(?!train)\w+"):
        parser = importlib.import_module(PROJECT["scripts"][program].partition(":")[0])._parser()
        try:
            options = parser.parse_intermixed_args(shlex.split(rest.partition(" > ")[0], comments=True))
        except InputError as error:
            pytest.fail(f"{program}{rest}: {error}")
        if program == "resnet-info" and not any("RUN" in item or item.startswith("outputs/") for item in options.items):
            for side in options.compare or [""]:
                overrides = [*options.items, *shlex.split(side)]
                compose_settings([item for item in overrides if "=" in item and not item.startswith("plan=")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_other_programs_are_files_that_exist_extras_or_marked_as_not_run(page):
    for program, rest, is_marked in lines_with(page.read_text(encoding="utf-8"), "|".join(OTHER_PROGRAMS)):
        if is_marked:
            continue
        if program == "python" and (file := re.match(r" ((?:benchmarks|examples)/[\w/]+\.py)", rest)):
            assert (ROOT / file[1]).is_file()
        elif program == "pip":
            for extra in re.findall(r"\[([\w,]+)\]", rest):
                assert set(extra.split(",")) <= set(PROJECT["optional-dependencies"])
        elif program == "eval":
            assert "resnet-train -sc install=" in rest
        elif program == "find":
            assert "| resnet-predict" in rest
        else:
            pytest.fail(f"{program}{rest}: not run; say why above the block: <!-- not run: REASON -->")


def write_photographs(folder):
    numbers = numpy.random.default_rng(0)
    for name, count, level in (("cat", 30, 60), ("dog", 30, 150), ("rare", 12, 100)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = numbers.integers(0, 60, (20, 24, 3)) + level
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{number}.png")


def shortened(arguments):
    """Return arguments with which training takes seconds: few batches, and one epoch more where it extends."""
    if "verify_resume=true" in arguments:
        return [*arguments, *TINY]
    if "--cfg" in arguments or any(a.startswith("reproduce=") for a in arguments):
        return arguments
    if any(a.startswith("resume=") and a != "resume=auto" for a in arguments):
        return [re.sub(r"^trainer\.epochs=\d+$", "trainer.epochs=2", a) for a in arguments]
    kept = [a for a in arguments if not a.startswith("trainer.epochs=")]
    return [re.sub(r"^(optimizer\.lr=[\d.]+,[\d.]+),.*", r"\1", a) for a in kept] + SHORT


@pytest.mark.slow
@pytest.mark.parametrize("name", START)
def test_the_commands_of_the_first_steps_run_in_their_order(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "photos")
    ran = 0
    for program, rest, is_marked in lines_with((ROOT / "docs" / "start" / f"{name}.md").read_text(), r"resnet-\w+"):
        arguments = shlex.split(rest, comments=True)
        if is_marked or "+epochs=3" in arguments:
            continue
        if program == "resnet-train":
            status = train(shortened(arguments))
        else:
            status = importlib.import_module(PROJECT["scripts"][program].partition(":")[0]).run(arguments)
        assert status == 0, (program, arguments)
        ran += 1
    assert ran >= 4
