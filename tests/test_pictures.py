"""Every picture of README and docs is made by docs/images/make.py, by commands that exist."""

import importlib.util
import re
import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from tests.support.doc_blocks import PAGES, ROOT
from tests.support.settings import problems_of, settings_of

IMAGES = ROOT / "docs" / "images"


@pytest.fixture(scope="module")
def maker():
    specification = importlib.util.spec_from_file_location("make_pictures", IMAGES / "make.py")
    module = sys.modules["make_pictures"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    del sys.modules["make_pictures"]


def test_each_picture_that_a_page_shows_has_its_commands(maker):
    shown = {
        name for page in PAGES for name in re.findall(r"!\[[^\]]*\]\([^)]*?([\w.-]+\.png)\)", page.read_text("utf-8"))
    }
    assert shown == set(maker.PICTURES) == {path.name for path in IMAGES.glob("*.png")}


def test_commands_that_make_the_pictures_are_those_of_programs_that_are_there(maker):
    for picture in maker.PICTURES.values():
        for command in picture.commands:
            name, *arguments = shlex.split(command)
            if name == "python":
                assert (ROOT / arguments[0]).is_file()
                only = arguments[arguments.index("--only") + 1]
                assert (ROOT / "conf" / "experiment" / f"{only}.yaml").is_file()
                data = arguments[arguments.index("--data") + 1 :] if "--data" in arguments else []
                assert problems_of(settings_of(f"experiment={only}", *data)) == []
            else:
                assert importlib.util.find_spec(f"resnet_cli.commands.{name.removeprefix('resnet-')}")


@pytest.mark.slow
def test_a_picture_is_made_again_as_it_is(maker, tmp_path):
    maker.make(maker.PICTURES["activations.png"], tmp_path / "new.png", tmp_path / "runs")
    with Image.open(tmp_path / "new.png") as new, Image.open(IMAGES / "activations.png") as old:
        assert new.size == old.size
        difference = np.abs(np.asarray(new, dtype=float) - np.asarray(old, dtype=float))
    assert difference.mean() < 3  # of 255: fonts and the last digits may differ on other machines


def test_pictures_of_photographs_are_left_out_without_them(maker, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["make.py", "rectifiers_photographs.png", "--images", str(tmp_path)])
    maker.main()
    assert "left out: give --photographs DIR" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
