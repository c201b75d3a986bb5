"""Wrong commands in bulk: each is refused in a line that names what is wrong, and leaves nothing behind."""

import json
import os
import shlex
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnet_cli.config import validation
from resnet_cli.errors import InputError
from resnet_cli.runs.names import quote_override, resume_command
from tests.support import tiers, wrong_commands
from tests.support.runs import tiny

NAMES = wrong_commands.rows(wrong_commands.NAMES)
TOGETHER = wrong_commands.rows(wrong_commands.TOGETHER)

MANY = """
import contextlib, gc, io, json, os, sys
from tests.support import quick_hydra
from resnet_cli.commands.train import run
quick_hydra.install()
gc.disable()
answers = []
for arguments in json.load(sys.stdin):
    out, err, before = io.StringIO(), io.StringIO(), sorted(os.listdir("."))
    sys.argv[1:] = arguments
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(arguments)
    answers.append([status, err.getvalue(), sorted(os.listdir(".")) == before, "torch" in sys.modules])
print(json.dumps(answers))
"""


def furnish(folder):
    """What some commands name: a file, and a folder that is no run's."""
    (folder / "file.txt").write_text("a file\n")
    (folder / "folder").mkdir()


def assert_refused(status, err, *words, most=2):
    lines = err.splitlines()
    assert status == 2, err
    assert lines
    assert len(lines) <= most
    assert all(line.startswith("error: ") for line in lines)
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.fixture(scope="module")
def answers(request, tmp_path_factory):
    """What one process answers to those of `NAMES` that are tried: (status, stderr, nothing made, torch imported)."""
    test = test_a_wrong_name_or_value_is_told_without_torch.__name__
    tried = [item.callspec.params["typed"] for item in request.session.items if item.originalname == test]
    folder = tmp_path_factory.mktemp("names")
    furnish(folder)
    done = subprocess.run(
        [sys.executable, "-c", MANY], input=json.dumps([shlex.split(typed) for typed in tried]), text=True,
        capture_output=True, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    return dict(zip(tried, json.loads(done.stdout), strict=True))


def test_the_table_is_long_and_has_each_command_once():
    typed = [row[0] for row in NAMES + TOGETHER]
    assert len(typed) >= 130
    assert len(set(typed)) == len(typed)


@pytest.mark.parametrize(("typed", "words"), tiers.mostly_slow(NAMES, every=6), ids=[typed for typed, _ in NAMES])
def test_a_wrong_name_or_value_is_told_without_torch(answers, typed, words):
    status, err, nothing_made, torch_imported = answers[typed]
    assert_refused(status, err, words)
    assert nothing_made
    assert not torch_imported


@pytest.mark.parametrize(("typed", "words"), tiers.mostly_slow(TOGETHER, every=4), ids=[typed for typed, _ in TOGETHER])
def test_what_does_not_go_together_is_told(train, tmp_path, typed, words):
    furnish(tmp_path)
    arguments = shlex.split(typed)
    status, _, err = train(*(arguments if typed.startswith("data=") else tiny(*arguments)))
    assert_refused(status, err, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder"]


def test_a_file_where_the_run_folder_should_be_is_the_machines_fault(train, tmp_path):
    furnish(tmp_path)
    status, _, err = train(*tiny("hydra.run.dir=file.txt"))
    assert (status, err.count("\n")) == (4, 1)
    assert "file.txt: is not a folder" in err
    assert (tmp_path / "file.txt").read_text() == "a file\n"


def paint(root, classes=("cat", "dog"), each=10, side=8):
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (side, side), (80 * label, 20 * i, 7)).save(root / name / f"{i}.png")


def folder_run(root, *more):
    return [
        "data=image_folder", f"data.root={quote_override(str(root))}", "data.cache=null", "data.val_fraction=0.25",
        "data.batch_size=8", "data.augment.crop=0", "model=resnet8", "trainer.epochs=1", *more,
    ]  # fmt: skip


def huge_png():
    """A PNG that says it has 400 million pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def cut(path):
    path.write_bytes(path.read_bytes()[:45])


def refold(path):
    path.unlink()
    path.mkdir()


BAD_IMAGES = {
    "an empty file": (lambda path: path.write_bytes(b""), "an empty file"),
    "text": (lambda path: path.write_text("hello"), "not an image in a format that Pillow reads"),
    "truncated": (cut, "cannot be decoded"),
    "400 megapixels": (lambda path: path.write_bytes(huge_png()), "too large to be decoded safely"),
    "a folder named as an image": (refold, "is a folder without images"),
    "floating-point": (
        lambda path: Image.new("F", (8, 8)).save(path, "TIFF"),
        "floating-point values; set data.range=",
    ),
    "another size": (lambda path: Image.new("RGB", (9, 7)).save(path), "is 9x7 pixels but"),
    "a broken link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "broken link"),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_is_named(train, tmp_path, spoil, words):
    paint(tmp_path / "pets")
    spoil(tmp_path / "pets/dog/3.png")
    status, _, err = train(*folder_run("pets"))
    assert_refused(status, err, "pets/dog/3.png", words)
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


def test_images_of_other_modes_are_converted_and_counted(train, tmp_path):
    paint(tmp_path / "pets")
    for i, mode in enumerate(["CMYK", "P", "L"]):
        suffix = "jpg" if mode == "CMYK" else "png"
        (tmp_path / f"pets/cat/{i}.png").unlink()
        Image.new(mode, (8, 8)).save(tmp_path / f"pets/cat/{i}.{suffix}")
    status, out, err = train(*folder_run("pets"))
    assert status == 0
    assert "converted" in out + err


def without_class(root):
    paint(root)
    (root / "fish").mkdir()


def unlike_val(root):
    paint(root / "train")
    paint(root / "val", ("cat", "cow"))


def only_test(root):
    paint(root / "test")


FOLDERS = {
    "a class without images": (without_class, "pets/fish is a folder without images"),
    "one class": (lambda root: paint(root, ("cat",)), "pets has 1 class ('cat')"),
    "validation of other classes": (unlike_val, "pets/val has 2 classes and pets/train has 2: 'cow' of val/ not in"),
    "no training part": (only_test, "pets has test/ but no train/"),
    "nothing": (lambda root: root.mkdir(), "pets has no class folders"),
    "one image a class": (lambda root: paint(root, each=1), "every class has only 1 image"),
}


@pytest.mark.parametrize(("make", "words"), FOLDERS.values(), ids=FOLDERS)
def test_wrong_classes_are_told_before_anything_is_made(train, tmp_path, make, words):
    make(tmp_path / "pets")
    status, _, err = train(*folder_run("pets"))
    assert_refused(status, err, words)
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


OWN_DATA = """
import torch
from resnet_cli.data.dataset import Dataset, DatasetSplit
def data(names: int, top: int):
    split = DatasetSplit(torch.zeros(40, 8, 8, 3, dtype=torch.uint8), torch.arange(40) % (top + 1))
    return Dataset("mine", tuple("abcdefgh"[:names]), split, split)
"""


@pytest.mark.parametrize(
    ("names", "top", "words"),
    [(3, 3, "labels go from 0 to 3, but there are 3 classes"), (4, 2, "4 classes are named but"), (1, 0, "1 class")],
)
def test_labels_and_classes_disagree(train, tmp_path, monkeypatch, names, top, words):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_wrong_data", raising=False)
    (tmp_path / "own_wrong_data.py").write_text(OWN_DATA)
    own = ["data._target_=own_wrong_data.data", f"data.names={names}", f"data.top={top}", "trainer.epochs=1"]
    status, _, err = train(*own)
    assert_refused(status, err, words)
    assert not (tmp_path / "outputs").exists()


ODD_NAMES = {
    "space": "a b", "accent": "é", "japanese": "日本", "quote": "it's", "double quote": 'a"b', "parenthesis": "a(b",
    "equals": "a=b", "comma": "a,b", "tilde": "~a", "colon": "a:b", "long": 200 * "x",
    "trailing slash": "a/",
}  # fmt: skip


@pytest.mark.parametrize("name", tiers.mostly_slow(ODD_NAMES.values(), every=6), ids=ODD_NAMES)
def test_odd_paths_work_when_quoted_and_a_line_tells_how_else(train, tmp_path, name):
    paint(tmp_path / "data" / name)
    run = f"runs/{name}"
    status, _, err = train(*folder_run(f"data/{name}"), f"hydra.run.dir={quote_override(run)}")
    assert (status, err) == (0, "")
    assert (tmp_path / run / "run.json").is_file()
    status, out, err = train(*shlex.split(resume_command(tmp_path / run))[1:])
    assert (status, err) == (0, "")
    assert "nothing to do" in out
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    status, _, err = train(f"resume=runs/{name}")
    if status:
        assert_refused(status, err, "quote")
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_a_reference_in_a_path_is_text_when_quoted_but_hydra_cannot_write_to_it(train, tmp_path):
    paint(tmp_path / "data/a${b}")
    assert train(*folder_run("data/a${b}"), "hydra.run.dir=d")[0] == 0
    before = sorted(tmp_path.rglob("*"))
    status, _, err = train(*folder_run("data/a${b}"), f"hydra.run.dir={quote_override('runs/a${b}')}")
    assert_refused(status, err, "hydra.run.dir=runs/a${b}: a folder name cannot contain ${", most=1)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_root_that_is_a_link_works(train, tmp_path):
    paint(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert train(*folder_run("link"))[0] == 0


@pytest.mark.slow
def test_a_terminal_without_unicode_is_enough(train_command, tmp_path):
    paint(tmp_path / "é日本")
    done = train_command(*folder_run("é日本"), f"hydra.run.dir={quote_override('ü')}", env={"LC_ALL": "C"})
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "ü/run.json").is_file()


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """A folder with the run `d` in it."""
    from resnet_cli.commands.train.main import run

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["resnet-train"])
        assert run(tiny("trainer.epochs=1", "hydra.run.dir=d")) == 0
    return folder


OTHER_RUNS = {
    "resume=d model=cnn": ("model._target_: resnet_cli.models.CifarResNet -> resnet_cli.models.CNN", 2),
    "resume=d model.width=2": ("model.width: 1 -> 2: changed since", 2),
    "resume=d model.widht=2": ("did you mean model.width?", 1),
    "resume=d/config.yaml": ("d/config.yaml: not a run folder", 1),
    "resume=d/checkpoints": ("d/checkpoints: not a run folder", 1),
    "resume=d/checkpoints/none.pt": ("d/checkpoints/none.pt: no such", 1),
}


@pytest.mark.parametrize(("typed", "answer"), OTHER_RUNS.items(), ids=OTHER_RUNS)
def test_a_run_is_not_continued_as_another(train, a_run, typed, answer):
    before = {path: path.stat().st_mtime_ns for path in a_run.rglob("*") if path.is_file()}
    status, _, err = train(*typed.split(), cwd=a_run)
    assert_refused(status, err, answer[0], most=answer[1])
    assert {path: path.stat().st_mtime_ns for path in a_run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["model=cnn", "init_from=d"], "holds weights of another model: none of its"),
        (["hydra.run.dir=d"], "already holds a run"),
    ],
)
def test_a_run_is_no_start_for_another_model(train, a_run, more, words):
    before = sorted(path.name for path in a_run.iterdir())
    status, _, err = train(*tiny(*more), cwd=a_run)
    assert_refused(status, err, words)
    assert sorted(path.name for path in a_run.iterdir()) == before


@pytest.fixture(scope="module")
def composed():
    from resnet_cli.hydra_app.compose import compose_settings

    return [compose_settings(items).settings for items in ([], ["model=cnn", "optimizer=adamw", "data=synthetic"])]


@given(data=st.data())
def test_any_misspelling_of_a_key_is_told_with_the_right_one(composed, data):
    settings = json.loads(json.dumps(data.draw(st.sampled_from(composed))))
    words = [
        key for key in validation.all_keys(settings) if "_params." not in key and "." in key and "_target_" not in key
    ]
    words = [key for key in words if len(key.rsplit(".", 1)[-1]) > 4 and key[:-1] not in words]  # not fold and folds
    key = data.draw(st.sampled_from(words))
    *path, last = key.split(".")
    place = data.draw(st.integers(0, len(last) - 1))
    letter = data.draw(st.sampled_from(ascii_lowercase))
    kinds = [last[:place] + last[place + 1 :], last[:place] + letter + last[place:]]
    wrong = data.draw(st.sampled_from([*kinds, last[:place] + letter + last[place + 1 :]]))
    node = settings
    for name in path:
        node = node[name]
    if wrong in validation.all_keys(node):
        return
    node[wrong] = node.pop(last)
    with pytest.raises(InputError) as refused:
        validation.check(settings)
    full = ".".join([*path, wrong])
    assert f"{full}: unknown key; did you mean {key}?" in refused.value.problems


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that takes none though it seems writable")
@pytest.mark.parametrize(
    "arguments", tiers.mostly_slow([["hydra.run.dir={}"], ["-m", "seed=0,1", "hydra.sweep.dir={}"]], every=4)
)
@pytest.mark.parametrize("folder", ["/proc/nowhere/run", f"new/{'x' * 300}"])
def test_a_folder_that_cannot_be_made_is_told_in_a_line(train, tmp_path, arguments, folder):
    status, out, err = train(*(argument.format(folder) for argument in arguments))
    assert (status, out, err.count("\n")) == (4, "", 1)
    assert f"{folder}: cannot be created: " in err
    assert list(tmp_path.iterdir()) == []
