"""Letter I: users' own folders, pictures, paths and files. They work, or are rejected in a line."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from campaign.checks import changes, listing, refusal, success
from campaign.harness import Bench, Test, Trial

RUN = (
    "data=image_folder", "data.batch_size=8", "data.image_size=8", "model=resnet8", "trainer.epochs=1",
    "data.cache=null",
)  # fmt: skip


def paint(root: Path, *names: str, count: int = 4) -> Path:
    """Save `count` random images of 12 x 12 pixels in each folder named."""
    draw = np.random.default_rng(len(names))
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def trained(bench: Bench, folder: Path, *arguments: str, words: str = "", lines: bool = False) -> str:
    """Train on a folder; return what is wrong: "" if it finished and its output holds `words`."""
    done = bench.fork(*RUN, "hydra.run.dir=run", *arguments, cwd=folder)
    shutil.rmtree(folder / "run", ignore_errors=True)
    problem = done.clean(lines=9) if lines else success(done)
    return problem or ("" if words in done.out + done.err else f"{words!r} not said: {done.out[:300]!r}")


def layouts(bench: Bench) -> Iterator[Trial]:
    cases = {
        "train and valid": (("train/a", "train/b", "valid/a", "valid/b"), 8),
        "Train and Test": (("Train/a", "Train/b", "Test/a", "Test/b"), 8),
        "training, dev and testing": (("training/a", "training/b", "dev/a", "dev/b", "testing/a", "testing/b"), 8),
    }
    for name, (folders, count) in cases.items():
        folder = bench.folder(name)
        paint(folder / "pets", *folders, count=count)
        problem = trained(bench, folder, "data.root=pets", words="2 classes", lines=True)
        yield Trial(name, not problem, problem)
    for name, parts in {"folds": ("fold1", "fold2"), "years": ("2019", "2020")}.items():
        folder = bench.folder(name)
        paint(folder / "pets", *[f"{part}/{label}" for part in parts for label in ("cat", "dog")])
        before = listing(folder)
        done = bench.fork(*RUN, "data.root=pets", cwd=folder)
        problem = refusal(done, "hold the same sub-folders") or changes(folder, before)
        yield Trial(name, not problem, problem)
    folder = bench.folder("droppings")
    paint(folder / "pets", "a", "b", "__MACOSX/a", "a/@eaDir", count=20)
    for name in ("Thumbs.db", "a/desktop.ini", "b/labels.xml", "README.txt"):
        (folder / "pets" / name).write_text("x", encoding="utf-8")
    problem = trained(bench, folder, "data.root=pets", words="skipped: no image extension", lines=True)
    yield Trial("droppings of tools", not problem, problem)
    folder = paint(bench.folder("here"), "a", "b", count=20)
    for number in (1, 2):
        done = bench.fork(*RUN, "data.root=.", cwd=folder)
        problem = done.clean(lines=9) or ("" if "2 classes" in done.out else "not 2 classes")
        yield Trial(f"data.root=., run {number}", not problem, problem)


def tails(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("one image")
    paint(paint(folder / "pets", "a", "b", count=20), "c", count=1)
    problem = trained(bench, folder, "data.root=pets", words="have nothing held out", lines=True)
    yield Trial("a class of one image", not problem, problem)
    folder = bench.folder("48 of 12")
    paint(folder / "pets", *(f"class {i}" for i in range(12)), count=4)
    problem = trained(bench, folder, "data.root=pets", words="12 classes", lines=True)
    yield Trial("48 images of 12 classes", not problem, problem)
    folder = bench.folder("singles")
    paint(folder / "pets", "a", "b", count=1)
    problem = refusal(bench.fork(*RUN, "data.root=pets", cwd=folder), "every class has only 1 image")
    yield Trial("one image a class", not problem, problem)


def pictures(bench: Bench) -> Iterator[Trial]:
    ramp = np.linspace(0, 65535, 144).astype(np.uint16).reshape(12, 12)
    cases = {
        "16 bits": (lambda path: Image.fromarray(ramp).save(path), "more than 8 bits"),
        "transparent": (lambda path: Image.new("RGBA", (12, 12)).save(path), "transparent pixels"),
        "frames": (
            lambda path: Image.new("RGB", (12, 12)).save(
                path, save_all=True, append_images=[Image.new("RGB", (12, 12), "red")]
            ),
            "several frames",
        ),
    }
    for name, (save, words) in cases.items():
        folder = bench.folder(name)
        paint(folder / "pets", "a", "b", count=20)
        save(folder / "pets/a/0.png")
        problem = trained(bench, folder, "data.root=pets", words=words, lines=True)
        yield Trial(name, not problem, problem)
    folder = bench.folder("float")
    paint(folder / "pets", "a", "b", count=20)
    Image.fromarray(np.zeros((12, 12), np.float32)).save(folder / "pets/a/x.tif")
    problem = refusal(bench.fork(*RUN, "data.root=pets", cwd=folder), "x.tif", "data.range=")
    yield Trial("floating-point", not problem, problem)


def other_data(bench: Bench) -> Iterator[Trial]:
    fixed = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]", "data.root=pets", "hydra.run.dir=run"]
    cases = {
        "more training images": ("data, training split", lambda pets: paint(pets, "train/a", count=9)),
        "another val": ("data, validation split", lambda pets: paint(pets, "val/a", "val/b", "val/c")),
        "swapped labels of val": (
            "data, validation split",
            lambda pets: [(pets / a).rename(pets / b) for a, b in (("val/a", "x"), ("val/b", "val/a"), ("x", "val/b"))],
        ),
    }
    for name, (words, change) in cases.items():
        folder = bench.folder(name)
        paint(folder / "pets", *[f"{split}/{label}" for split in ("train", "val", "test") for label in "abc"])
        problem = success(bench.fork(*RUN, *fixed, cwd=folder))
        change(folder / "pets")
        again = bench.fork("resume=run", "trainer.epochs=2", cwd=folder)
        yield Trial(name, not problem, problem or refusal(again, words, "resume_force=true"))
        problem = problem or refusal(again, words, "resume_force=true")


def places(bench: Bench) -> Iterator[Trial]:
    for name in ["with space", "(x)", "é ö 日本", "a,b", "$HOME", "k=v"]:
        folder = bench.folder("place")
        paint(folder / name, "a", "b", count=20)
        options = [*RUN, f"data.root={name}", "hydra.run.dir=run"]
        problem = success(bench.fork(*options, cwd=folder))
        (folder / "elsewhere").mkdir()
        again = bench.fork("resume=../run", "trainer.epochs=2", cwd=folder / "elsewhere")
        problem = problem or success(again)
        yield Trial(f"data.root={name}, resumed from elsewhere", not problem, problem)
        shutil.rmtree(folder)


def empties(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("empty")
    paint(folder / "pets", "a", "b", count=20)
    before = listing(folder)
    for argument in ("data.root=", "data.cache=", "hydra.run.dir=", "resume=", "init_from="):
        others = [option for option in (*RUN, "data.root=pets") if not option.startswith(argument)]
        done = bench.fork(*others, argument, cwd=folder)
        problem = refusal(done, argument.rstrip("=")) or changes(folder, before)
        yield Trial(argument, not problem, problem)


def own_files(bench: Bench) -> Iterator[Trial]:
    spoils = {
        "a tab": "a:\n\tb: 1\n", "an open bracket": "a: [1\n", "a key twice": "lr: 1\nlr: 2\n", "no anchor": "a: *x\n",
        "an unknown tag": "a: !x 1\n", "Latin-1": "a: é\n",
    }  # fmt: skip
    for name, text in spoils.items():
        folder = bench.folder(name)
        (folder / "conf/optimizer").mkdir(parents=True)
        (folder / "conf/optimizer/mine.yaml").write_bytes(text.encode("latin-1"))
        before = listing(folder)
        done = bench.fork("optimizer=mine", "data=synthetic", cwd=folder)
        problem = refusal(done, "mine.yaml:", most=1) or changes(folder, before)
        yield Trial(name, not problem, problem)


def named(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("named")
    tiny = ["data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3",
            "data.batch_size=32", "model=resnet8", "trainer.epochs=1", "hydra.run.dir=run"]  # fmt: skip
    problem = success(bench.fork(*tiny, cwd=folder))
    done = bench.fork("resume=run/checkpoints/best.pt", "trainer.epochs=2", cwd=folder)
    yield Trial("resume=best.pt", not problem, problem or refusal(done, "best.pt", "init_from="))
    for typed, words in {
        "optimizer._target_=os.system": "os.system is not an optimizer",
        "schedule._target_=torch.optim.lr_scheduler.StepLR": "is not a schedule",
        "data.batch_size=1 model=residual_mlp model.norm=batch": "data.batch_size=1",
    }.items():
        given = {argument.partition("=")[0] for argument in typed.split()}
        others = [option for option in tiny[:-1] if option.partition("=")[0] not in given]
        problem = refusal(bench.fork(*others, *typed.split(), cwd=folder), words)
        yield Trial(typed, not problem, problem)


def homeless(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("homeless")
    paint(folder / "pets", "a", "b", count=20)
    env = {key: value for key, value in os.environ.items() if key != "HOME"} | {"LANG": "C", "PYTHONUTF8": "0"}
    (folder / "pets/a/0.png").rename(folder / "pets/a/é.png")
    problem = trained(bench, folder, "data.root=pets", "name=été", words="2 classes", lines=True)
    yield Trial("names beyond ASCII", not problem, problem)
    done = bench.cli(*RUN, "data.root=pets", "hydra.run.dir=run", cwd=folder, env={**env, "PYTHONIOENCODING": "ascii"})
    problem = done.clean(lines=9)
    yield Trial("an ASCII terminal", not problem, problem)


TESTS = (
    Test("I1", "folders as people lay them out", 2, layouts),
    Test("I2", "rare classes", 1, tails),
    Test("I3", "depth, transparency and frames of pictures", 1, pictures),
    Test("I4", "data that changed between start and resume", 2, other_data),
    Test("I5", "unusual paths, resumed from another folder", 2, places),
    Test("I6", "empty values", 1, empties),
    Test("I7", "user-defined YAML files", 1, own_files),
    Test("I8", "typed overrides take effect", 1, named),
    Test("I9", "terminals and names", 1, homeless),
)
