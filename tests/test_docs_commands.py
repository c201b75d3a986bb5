"""Each command of the documentation is run in the order of its page, or its block says why it is not run."""

import contextlib
import importlib
import io
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from docs._ext.generated import GENERATORS
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import InputError
from tests.support import doc_run
from tests.support.doc_blocks import MARK, PAGES, ROOT, Command, blocks_of, commands_of, inline_commands
from tests.support.doc_places import make

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DRAWN = {  # blocks that show something else than commands, and what holds them
    "docs/design.md": "tests/test_architecture.py",
    "docs/errors.md": "tests/test_docs.py",
    "docs/experiments.md": "test_gradients_of_the_page_are_those_that_are_printed",
    "docs/howto/groups.md": "test_experiment_of_the_page_sets_what_it_says",
    "docs/plan.md": "test_lines_of_a_plan_have_the_form_that_the_page_shows",
    "docs/reference/run_folder.md": "tests/test_readme.py",
    "docs/understand/code.md": "tests/test_readme.py",
}
MISSING = r"not installed: pip install 'resnet-cli\[(wandb|mlflow|tensorboard)\]'"  # extras that the tests do without
TYPED = ("resume", "reproduce", "verify_resume")  # on a command line only
SEVERAL = r"hydra\.launcher\.gpus|trainer\.processes=8|hydra/launcher=(ray|submitit_slurm)"  # GPUs, machines
CACHES = {"RESNET_CLI_DATA": "downloads", "TORCH_HOME": "torch", "RESNET_CLI_CACHE": "decoded"}
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def commands(page):
    """Return the commands of a page that are run, in order; the README's tables have some too."""
    found = [command for block in blocks_of(page) if is_run(block) for command in commands_of(block.text)]
    if page.name == "README.md":
        found += inline_commands(page)
    return [each for each in found if not (page.name == "scaling.md" and re.search(SEVERAL, " ".join(each.arguments)))]


def is_run(block):
    return block.kind == "shell" and block.reason is None


@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_run_held_by_a_test_or_says_why_not(name):
    for block in blocks_of(ROOT / name):
        place = f"{name}:{block.line}"
        if block.reason is not None:
            assert MARK.fullmatch(f"<!-- not run: {block.reason} -->"), f"{place}: {block.reason} is no reason"
        elif block.kind == "shell":
            for command in commands_of(block.text):
                assert command.program in {*PROJECT["scripts"], "eval", "source"}, f"{place}: say why it is not run"
        elif block.kind == "text":
            assert name in DRAWN, f"{place}: name the test that holds it"
        else:
            assert block.kind in ("python", "directive"), f"{place}: {block.kind} is not run by any test"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_marked_as_not_run_exists(name):
    for block in blocks_of(ROOT / name):
        for command in commands_of(block.text) if block.kind == "shell" and block.reason else ():
            line = " ".join(command.arguments)
            if command.program == "pip":
                for extras in re.findall(r"\[([\w,]+)\]", line):
                    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
            elif command.program == "python":
                source = (ROOT / command.arguments[0]).read_text(encoding="utf-8")
                for flag in re.findall(r"(?<= )--[\w-]+", line):
                    assert flag in source or flag[2:].replace("-", "_") in source, f"{line}: {flag}"


@pytest.mark.parametrize("name", NAMES)
def test_flags_of_the_page_are_accepted(name):
    in_sentences = [each for each in inline_commands(ROOT / name) if not each.arguments[0].startswith("-")]
    for command in [*commands(ROOT / name), *in_sentences]:
        if command.program.startswith("resnet-") and command.program != "resnet-train":
            parser = importlib.import_module(PROJECT["scripts"][command.program].partition(":")[0])._parser()
            try:
                parser.parse_intermixed_args(command.arguments)
            except InputError as error:
                pytest.fail(f"{command}: {error}")


@pytest.fixture(scope="module")
def keys():
    """Every key that the reference lists."""
    return set(re.findall(r"^\| `([^`]+)` \|", GENERATORS["keys"](), re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_options_of_the_page_exist(name, keys):
    """What a second of composing each command would find, but for the values."""
    for command in [*commands(ROOT / name), *inline_commands(ROOT / name)]:
        if command.program != "resnet-train" or re.search(r"depht|_target_=|^-sc ", " ".join(command.arguments)):
            continue
        for key, values in re.findall(r"(?:^|\n)\+?([\w./]+)=(.*)", "\n".join(command.arguments)):
            if (CONFIG_FOLDER / key).is_dir():
                options = re.findall(r"\w+", values)
                assert all((CONFIG_FOLDER / key / f"{option}.yaml").is_file() for option in options), command
            elif not key.startswith(("hydra", "plan", "find", "logger.", "sweep.")) and key not in TYPED:
                known = {key, re.sub(r"^\w+\.", "node.", key), re.sub(r"\.\w+$", "", key)}
                assert known & keys, (key, command)


def test_commands_of_the_release_notes_are_those_of_pages_on_which_they_run():
    elsewhere = {(each.program, each.arguments) for page in PAGES for each in commands(page)}
    elsewhere |= {(each.program, each.arguments) for each in inline_commands(ROOT / "README.md")}
    elsewhere.add(("resnet-train", ("-sc", "install=bash")))  # in eval "$(...)"
    found = inline_commands(ROOT / "docs/release_notes.md")
    assert len(found) >= 25
    for command in found:
        assert (command.program, command.arguments) in elsewhere, command


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A folder that things are made in once, and copied from by the pages that name them."""
    return tmp_path_factory.mktemp("docs")


@pytest.fixture
def place(template, tmp_path, monkeypatch):
    """Makes a working folder that has what a page names; nothing is fetched and the reader's caches are not touched."""

    def prepare(text):
        for name, folder in CACHES.items():
            monkeypatch.setenv(name, str(tmp_path / "place" / folder))
        if "model=timm" in text:
            pytest.importorskip("timm")
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "place" / "hub"))
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.syspath_prepend(tmp_path / "place")
        make(text, template, tmp_path / "place")
        monkeypatch.chdir(tmp_path / "place")
        return tmp_path / "place"

    return prepare


@pytest.fixture(scope="session")
def done():
    """Commands that have run already and leave nothing that the next one needs."""
    return set()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if commands(ROOT / name)])
def test_commands_of_the_page_run_in_their_order(name, place, done):
    place((ROOT / name).read_text(encoding="utf-8"))
    for command in commands(ROOT / name):
        if command in done:
            continue
        if command.program == "resnet-info" or "verify_resume=true" in command.arguments:
            done.add(command)
        status, out, err = doc_run.run(command)
        if command.shown is not None:
            assert (out + err).rstrip() == command.shown, command
        elif any(argument in doc_run.WAITING for argument in command.arguments):
            assert status == 130, (command, err)
        elif status == 2 and ("depht" in str(command) or re.search(MISSING, err)):
            continue
        else:
            assert status == 0, (command, err)


@pytest.mark.slow
def test_gradients_of_the_page_are_those_that_are_printed(place):
    place("")
    path = ROOT / "docs/experiments.md"
    (shown,) = [block.text for block in blocks_of(path) if block.kind == "text"]
    (command,) = [each for each in inline_commands(path) if "--gradients" in each.arguments]
    printed = doc_run.run(command)[1]
    rows = {line.split()[1]: line.split() for line in printed.splitlines() if len(line.split()) > 4}
    for line in shown.splitlines():
        *words, plain, residual = line.split()
        *printed_words, printed_plain, printed_residual = rows[words[1]]
        assert words == printed_words
        if words[0] != "depth":
            assert [float(plain), float(residual)] == pytest.approx(
                [float(printed_plain), float(printed_residual)], 0.02
            )


@pytest.mark.slow
def test_lines_of_a_plan_have_the_form_that_the_page_shows(place):
    folder = place("DIR")
    (shown,) = [block.text for block in blocks_of(ROOT / "docs/plan.md") if block.kind == "text"]
    arguments = ("data=image_folder", "data.root=DIR", "plan=good", 'trainer.time_budget="20 s"', "--cfg", "job")
    status, _, err = doc_run.run(Command("resnet-train", arguments))
    assert status == 0
    printed = dict(re.findall(r"^plan    ([\w.]+)=\S+ {2,}(\S.*)$", err, re.MULTILINE))
    lines = re.findall(r"^plan    ([\w.]+)=\S+ {2,}(\S.*)$", shown, re.MULTILINE)
    assert len(lines) == len(shown.splitlines())
    others = {"data.val_fraction", "data.augment.flip", "data.augment.policy"}  # of other images and times
    assert {key for key, _ in lines} - others <= set(printed)
    assert not (folder / "outputs").exists()


@pytest.mark.slow
def test_experiment_of_the_page_sets_what_it_says(place):
    folder = place("")
    (shown,) = [block.text for block in blocks_of(ROOT / "docs/howto/groups.md") if block.kind == "text"]
    (folder / "conf/experiment").mkdir(parents=True)
    (folder / "conf/experiment/mine.yaml").write_text(f"{shown}\n", encoding="utf-8")
    status, out, err = doc_run.run(Command("resnet-train", ("experiment=mine", "--cfg", "job")))
    assert status == 0, err
    composed = yaml.safe_load(out)
    assert (composed["model"]["depth"], composed["optimizer"]["_target_"]) == (20, "torch.optim.AdamW")
    assert (composed["optimizer"]["lr"], composed["trainer"]["epochs"], composed["seed_init"]) == (0.003, 50, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if any(b.kind == "python" for b in blocks_of(ROOT / name))])
def test_python_of_the_page_runs(name, place, monkeypatch):
    import resnet_cli

    folder = place((ROOT / name).read_text(encoding="utf-8"))
    full = resnet_cli.train

    def short(overrides):
        return full(doc_run.shrunk(overrides))

    monkeypatch.setattr(resnet_cli, "train", short)
    namespace, printed = {}, io.StringIO()
    for block in blocks_of(ROOT / name):
        if block.kind == "python":
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, f"{name}:{block.line}", "exec"), namespace)
    assert json.loads(next(folder.glob("outputs/*/*/run.json")).read_text())["status"] == "finished"
    assert str(Path("outputs")) in printed.getvalue()
