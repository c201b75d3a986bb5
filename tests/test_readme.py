"""README and docs are true: the tree is the tree, commands are accepted, names and links exist."""

import importlib.util
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.run_config import CONTROL_KEYS
from resnet_cli.config.signatures import locate
from resnet_cli.runs.folder import RunDir
from tests.support import tiers
from tests.support.settings import problems_of, settings_of

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/[!_]*/*.md"))]
PAGES += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))
OTHER_PAGES = ["CONTRIBUTING.md", "SECURITY.md"]


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def commands(text):
    """Every resnet-train line of a page, without its comment."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        found = re.match(r"\s+(?:\$ |pip install .* && )?(resnet-train.*)", line)
        found = found or re.match(r"\| .* \| `(resnet-train[^`]*)` \|$", line)
        if found:
            yield shlex.split(re.split(r" {4,}", found[1])[0], comments=True)[1:]


def test_tree_names_every_component_and_no_other(repository):
    tree = read("docs/understand/code.md").partition("\nTo read the code")[0]
    package = repository / "resnet_cli"
    components = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    components |= {path.name for path in package.glob("*.py") if not path.name.startswith("_")}
    assert re.findall(r"^ {6}(\w+(?:\.py|/)) ", tree, re.MULTILINE) == sorted(components, key=tree.index)
    top = re.findall(r"^ {4}(\w+)/ ", tree, re.MULTILINE)
    folders = {path.name for path in repository.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    assert set(top) <= folders
    assert {"conf", "resnet_cli", "examples", "tests", "docs", "benchmarks"} <= set(top)
    for inner in re.findall(r"(\w+)/(?= [a-z(])", "\n".join(re.findall(r"^ {6}\w+/ +(.*)$", tree, re.MULTILINE))):
        assert list(package.glob(f"*/{inner}/__init__.py")), inner


def test_reading_order_names_files_that_exist(repository):
    text = read("docs/understand/code.md")
    order = re.search(r"`conf/train\.yaml` \(what.*?\n\n", text, re.DOTALL)[0]
    files = re.findall(r"`([\w/]+\.(?:py|yaml))`", order)
    assert len(files) >= 9
    for file in files:
        assert (repository / file).exists() or (repository / "resnet_cli" / file).exists(), file


@pytest.mark.parametrize("page", tiers.mostly_slow(PAGES, every=4))
def test_every_command_is_accepted(repository, page):
    for arguments in commands(read(page)):
        overrides = [
            a for a in arguments if not a.startswith("-") and not a.startswith(("resume", "+", "hydra.sweeper."))
        ]
        overrides = [a for a in overrides if a not in ("job", "...")]  # of --cfg job, and where the text leaves out
        overrides = [a for a in overrides if "interval(" not in a and "range(" not in a]  # test_search has those
        overrides = [re.sub(r"^seed\.", "seed_", a) for a in overrides]  # as the command itself does
        overrides = [re.sub(r"=choice\((\w+),.*", r"=\1", a) for a in overrides]
        if "-sc" in arguments or any(re.search("mynets|depht|MultiMarginLoss", a) for a in overrides):
            continue  # a line for the shell, the reader's file, wrong input, a loss whose keys the command exchanges
        first = [a if "=[" in a else a.split(",")[0] for a in overrides]  # of a sweep, the first job
        assert problems_of(settings_of(*first)) == [], arguments


def test_the_pages_have_commands_at_all():
    counts = {page: len(list(commands(read(page)))) for page in PAGES}
    assert sum(counts.values()) >= 110
    for page in ("README.md", "docs/experiments.md", "docs/scaling.md", "docs/pretrained.md", "docs/howto/settings.md"):
        assert counts[page] >= 5, page


@pytest.mark.parametrize("page", ["README.md", "docs/start/first_run.md"])
def test_the_example_of_wrong_input_is_what_is_printed(page):
    text = read(page)
    settings = settings_of("+model.depht=20", "trainer.precision=fp17", "+epochs=3")
    printed = re.findall(r"^ +error: (.*)$", text, re.MULTILINE)
    assert printed == problems_of(settings)


@pytest.mark.parametrize("group", ["optimizer", "schedule", "loss", "data", "trainer"])
def test_every_option_is_in_the_table_of_groups(repository, group):
    row = next(line for line in read("docs/howto/groups.md").splitlines() if line.startswith(f"| `{group}`"))
    for path in (CONFIG_FOLDER / group).glob("*.yaml"):
        assert f"`{path.stem}`" in row


def test_every_model_preset_is_in_the_table_of_sizes(repository):
    text = read("docs/understand/presets.md") + read("docs/howto/groups.md")
    for path in (CONFIG_FOLDER / "model").glob("*.yaml"):
        if not path.stem.startswith("plain"):
            assert f"`{path.stem}`" in text, path.stem


@pytest.mark.parametrize("page", PAGES)
def test_pictures_and_pages_that_are_linked_exist(repository, page):
    path = repository / page
    for link in re.findall(r"\]\(([^):]*)\)", path.read_text(encoding="utf-8")):
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.is_file(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}, link


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_links_to_other_places_are_whole_addresses(page):
    for link in re.findall(r"\]\((\w+:[^)]*)\)", read(page)):
        address = urlsplit(link)
        assert address.scheme in ("https", "http", "mailto"), link
        assert address.scheme == "mailto" or re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", address.netloc), link
        assert not re.search(r"\s", link), link


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_files_of_the_repository_that_a_page_names_exist(repository, page):
    text = read(page)
    text = text.partition("\n## Adding something")[0] + text.partition("\n## Style")[2]  # recipes name files to come
    for path in re.findall(r"`((?:resnet_cli|benchmarks|tests|docs)/[\w/.-]*\w)`", text):
        assert "NAME" in path or (repository / path).exists(), path


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_dotted_names_of_the_package_on_a_page_exist(repository, page):
    text = read(page)
    text = text.partition("\n## Adding something")[0] + text.partition("\n## Style")[2]
    for name in re.findall(r"`(resnet_cli(?:\.\w+)+)\W", text):
        assert (name.count(".") == 1 and importlib.util.find_spec(name)) or locate(name), name


def test_top_level_keys_of_the_interface_exist():
    assert set(CONTROL_KEYS) <= set(settings_of())


def test_every_file_of_a_run_folder_is_named(repository):
    section = read("docs/reference/run_folder.md").partition("One process")[0]
    named = {name.rstrip("/") for name in re.findall(r"^ {6}([\w.]+/?) ", section, re.MULTILINE)}
    run = RunDir("run")
    files = {path.relative_to(run.path).parts[0] for path in vars(run).values() if path != run.path}
    assert named == files
