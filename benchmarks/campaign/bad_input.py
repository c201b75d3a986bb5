"""Letter E: wrong configs, wrong data and odd paths. Each is rejected in a line or two, and nothing is left behind."""

import os
import pickle
import shlex
import shutil
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from campaign.checks import changes, listing, refusal, success
from campaign.harness import Bench, Done, Test, Trial
from resnet_cli.runs.names import quote_override, resume_command

SMALL = (
    "data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3",
    "data.batch_size=32", "model=resnet8", "trainer.epochs=1",
)  # fmt: skip

# Command line -> text that the error message must contain. The checks of `PLAIN` need no torch.
PLAIN = """
model.colour=3 -> model.colour: unknown key
model.depht=20 -> model.depht: unknown key; did you mean model.depth?
model=resnet21 -> model=resnet21: no such option; did you mean resnet20?
model=resnet20 model=plain20 -> model: given twice, as resnet20 and as plain20
optimizer.lr=abc -> optimizer.lr: abc is not allowed; it takes a number above 0
optimizer.lr= -> optimizer.lr: is empty; it takes a number above 0
optimizer.lr=null -> optimizer.lr: null is not allowed; it takes a number above 0
optimizer.lr=nan -> optimizer.lr: nan is not allowed; it takes a number above 0
optimizer.lr=inf -> optimizer.lr: inf is not allowed; it takes a number above 0
optimizer.lr=-1 -> optimizer.lr: -1 is not allowed; it takes a number above 0
optimizer.lr=0 -> optimizer.lr: 0 is not allowed; it takes a number above 0
optimizer.momentum=1.5 -> optimizer.momentum: 1.5 is not allowed; it takes a number from 0 to below 1
optimizer.weight_decay=-1 -> optimizer.weight_decay: -1 is not allowed; it takes a number 0 or more
trainer.epochs=0 -> trainer.epochs: 0 is not allowed; it takes a number above 0
trainer.epochs=-2.5 -> trainer.epochs: -2.5 is not allowed; it takes a number above 0
trainer.epochs=many -> trainer.epochs: many is not allowed; it takes a number above 0
trainer.epochs=12345678901234567890 -> trainer.epochs: 12345678901234567890 (more than 64 bits hold)
data.batch_size=0 -> data.batch_size: 0 is not allowed; it takes a whole number 1 or more
data.workers=-1 -> data.workers: -1 is not allowed; it takes a whole number from 0 to 256
data.workers=10000 -> data.workers: 10000 is not allowed; it takes a whole number from 0 to 256
trainer.precision=fp17 -> trainer.precision: fp17 is not allowed; it takes one of auto, fp32, tf32, bf16, fp16
seed=-1 -> seed: -1 is not allowed; it takes a whole number from 0
seed=1180591620717411303424 -> seed: 1180591620717411303424 (more than 64 bits hold)
data.classes=1 -> data.classes: 1 is not allowed; it takes a whole number from 2
data=cifar100 data.classes=10 -> data.classes: 10 is not allowed; it takes a list
trainer.averaging_decay=1.5 -> trainer.averaging_decay: 1.5 is not allowed; it takes a number from 0 to below 1
trainer.label_smoothing=2 -> trainer.label_smoothing: 2 is not allowed; it takes a number from 0 to below 1
resume=nowhere -> nowhere: no such run folder
resume=d model=cnn -> model._target_: resnet_cli.models.CifarResNet -> resnet_cli.models.CNN
+extra=1 -> extra: unknown key (allowed: name, seed
seed=${nope} -> seed: Interpolation key 'nope' not found
[1,2 -> [1,2: not key=value
a=b=c -> a=b=c: not key=value
"""
BUILT = """
data.drop_last=true data.batch_size=1000 -> data.batch_size=1000: must be at most
trainer.processes=64 data.batch_size=33 -> data.batch_size=33: must be at least trainer.processes=64
trainer.device=cuda -> trainer.device: cuda is not available on this machine: 0 CUDA devices
trainer.device=gpu0 -> trainer.device: 'gpu0' is not a device; it takes auto, cpu, cuda
trainer.device=cpu trainer.precision=fp16 -> trainer.precision: fp16 is not supported on the CPU; use auto, fp32 or bf16
model=cnn model.pool_every=1 data.image_size=4 -> leaves 0x0 pixels
model=cifar_resnet model.depth=19 -> model.depth=19: must be 6n+2
trainer.epochs=4 schedule=multistep schedule.milestones=[75%,50%] -> allowed are positions in order
schedule.warmup=100 -> schedule.warmup=100 is 300 steps, longer than the run of 3 steps
"""
TIMED = (
    "model.depht=20", "optimizer.lr=nan", "[1,2", "resume=nowhere", "trainer.device=gpu0", "schedule.warmup=100",
)  # fmt: skip


def rows(table: str) -> list[tuple[str, str]]:
    """Return (command line, what the error message must contain) of each line."""
    pairs = [line.split(" -> ", 1) for line in table.splitlines() if line]
    return [(typed, words) for typed, words in pairs]


def small(typed: str) -> list[str]:
    """Return the arguments of a run of one second, with the overrides of a command line."""
    given = shlex.split(typed)
    if given[0].startswith(("resume=", "data=")):
        return given
    keys = {argument.partition("=")[0] for argument in given}
    return [*(option for option in SMALL if option.partition("=")[0] not in keys), *given]


def bad_configs(bench: Bench) -> Iterator[Trial]:
    table = rows(PLAIN) + rows(BUILT)
    folder = bench.folder("configs")
    made = bench.fork(*SMALL, "hydra.run.dir=d", cwd=folder)
    if made.status:
        yield Trial("the run d", False, success(made))
        return
    before = listing(folder)
    cases = bench.random.sample(table, 6) if bench.quick else table
    for typed, words in cases:
        done = bench.fork(*small(typed), cwd=folder, env={"CUDA_VISIBLE_DEVICES": ""})
        problem = refusal(done, words) or changes(folder, before)
        before = listing(folder)  # so that files left by a failed trial do not count against the next one
        yield Trial(typed, not problem, problem)
    torch = 0.0 if bench.quick else _fastest(bench, folder, command=(sys.executable, "-c", "import torch")).seconds
    for typed in TIMED[:1] if bench.quick else TIMED:
        # Errors found while building come after the import of torch, which takes 2 s by itself on some machines.
        limit = 2.0 + (torch if typed in dict(rows(BUILT)) else 0.0)
        done = _fastest(bench, folder, *small(typed), enough=limit)
        problem = refusal(done, dict(table)[typed], seconds=limit) or changes(folder, before)
        yield Trial(f"{typed} within {limit:.1f} s", not problem, problem or f"{done.seconds:.2f} s")


def _fastest(bench: Bench, folder: Path, *arguments: str, enough: float = 0.0, **how: Any) -> Done:
    """Return the fastest of five runs, since other load on the machine can only slow a command down."""
    runs: list[Done] = []
    while len(runs) < 5 and not any(done.seconds < enough for done in runs):
        runs.append(bench.cli(*arguments, cwd=folder, env={"CUDA_VISIBLE_DEVICES": ""}, **how))
    return min(runs, key=lambda done: done.seconds)


def paint(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 10, side: int = 8) -> None:
    """Image files of plain colours, a folder for each class."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            Image.new("RGB", (side, side), (80 * label, 20 * i, 7)).save(root / name / f"{i}.png")


def of_folder(root: str, *more: str) -> list[str]:
    """Arguments of a run on an image folder."""
    return [
        "data=image_folder", f"data.root={quote_override(root)}", "data.cache=null", "data.val_fraction=0.25",
        "data.batch_size=8", "data.augment.crop=0", "model=resnet8", "trainer.epochs=1", *more,
    ]  # fmt: skip


def cifar(folder: Path, *, count: int = 40, **replaced: Any) -> Path:
    """Create a folder of random images in CIFAR-10's layout; `replaced` are batches by file name."""
    rng = np.random.default_rng(0)
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            "labels": [i % 10 for i in range(count)],
            "filenames": [f"{i}.png" for i in range(count)],
            "batch_label": name,
        }
        (place / name).write_bytes(pickle.dumps(replaced.get(name, batch), 2))
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}, 2))
    return place


def cifar_archive(root: Path, source: Path) -> Path:
    """Create the archive of such a set where the program looks for it."""
    root.mkdir(parents=True, exist_ok=True)
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, source.name)
    return archive


def of_cifar(*more: str, data: str = "cifar10", root: str = "sets") -> list[str]:
    """Arguments of a run on CIFAR."""
    return [
        f"data={data}", f"data.root={root}", "data.batch_size=50", "model=resnet8", "model.width=2",
        "trainer.epochs=1", "hydra.run.dir=run", *more,
    ]  # fmt: skip


def datasets(bench: Bench) -> Iterator[Trial]:
    source = cifar(bench.folder("cifar"))

    def whole(folder: Path) -> Done:
        """Run a second time, with the set in place."""
        shutil.rmtree(folder / "sets", ignore_errors=True)
        cifar_archive(folder / "sets", source)
        return bench.fork(*of_cifar("data.verify=false"), cwd=folder)

    def first(name: str, arguments: list[str], words: list[str], then: Callable[[Path], Done], **how: Any) -> Trial:
        folder = bench.root / name
        folder.mkdir(exist_ok=True)
        before = listing(folder)
        run = bench.cli if how else bench.fork
        problem = refusal(run(*arguments, cwd=folder, **how), *words, most=1) or changes(folder, before)
        problem = problem or success(then(folder))
        return Trial(name, not problem, problem)

    offline = {"prefix": ("unshare", "-n")}
    yield first("no set, offline", of_cifar(), ["could not fetch", "put it at sets", "data=digits"], whole, **offline)
    if bench.quick:
        return
    words = ["not found at", "data.download=true", "data.root="]
    yield first("no set, no download", of_cifar("data.download=false"), words, whole)
    alike = partial(of_cifar, data="mnist")
    digits = lambda folder: bench.fork("data=digits", "model=resnet8", "trainer.max_batches=2", cwd=folder)  # noqa: E731
    yield first("another set, offline", alike(), ["could not fetch", "mnist", "data=digits"], digits, **offline)
    cifar_archive(bench.folder("wrong MD5") / "sets", source)
    again = lambda folder: bench.fork(*of_cifar("data.verify=false"), cwd=folder)  # noqa: E731
    words = ["cifar-10-python.tar.gz: its data_batch_1 has the MD5", "data.verify=false"]
    yield first("wrong MD5", of_cifar(), words, again)
    archive = cifar_archive(bench.folder("cut archive") / "sets", source)
    archive.write_bytes(archive.read_bytes()[:100_000])
    yield first("cut archive", of_cifar("data.verify=false"), ["cifar-10-python.tar.gz: damaged"], whole)
    lacking = cifar(bench.folder("a batch missing") / "sets")
    (lacking / "data_batch_3").unlink()
    words = ["not found at", "data.download=true"]
    yield first("a batch missing", of_cifar("data.verify=false", "data.download=false"), words, whole)
    paint(bench.folder("empty class") / "pets")
    (bench.root / "empty class/pets/fish").mkdir()

    def fill(folder: Path) -> Done:
        paint(folder / "pets", ("fish",))
        return bench.fork(*of_folder("pets"), cwd=folder)

    yield first("empty class", of_folder("pets"), ["pets/fish is a folder without images"], fill)
    paint(bench.folder("unreadable file") / "pets")
    file = bench.root / "unreadable file/pets/dog/3.png"
    file.chmod(0)

    def allow(folder: Path) -> Done:
        file.chmod(0o644)
        return bench.fork(*of_folder("pets"), cwd=folder)

    # The superuser reads everything, unless these two rights are taken away.
    rights = "-dac_override,-dac_read_search"
    taken = ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}") if os.geteuid() == 0 else ()
    yield first("unreadable file", of_folder("pets"), ["pets/dog/3.png"], allow, prefix=taken)


OWN = """
import torch
from resnet_cli.data.dataset import Dataset, DatasetSplit
def data(names: int, top: int):
    split = DatasetSplit(torch.zeros(40, 8, 8, 3, dtype=torch.uint8), torch.arange(40) % (top + 1))
    return Dataset("mine", tuple("abcdefgh"[:names]), split, split)
"""


def classes(bench: Bench) -> Iterator[Trial]:
    def judged(name: str, folder: Path, arguments: list[str], *words: str) -> Trial:
        before = listing(folder)
        done = bench.fork(*arguments, cwd=folder)
        problem = refusal(done, *words) or changes(folder, before, allowed=("__pycache__",))
        problem = problem or ("training began" if "epoch 1/" in done.out else "")
        return Trial(name, not problem, problem)

    def own(names: int, top: int) -> list[str]:
        return ["data._target_=own_data.data", f"data.names={names}", f"data.top={top}", "trainer.epochs=1"]

    folder = bench.folder("own")
    (folder / "own_data.py").write_text(OWN)
    yield judged("labels beyond the classes", folder, own(3, 3), "from 0 to 3", "3 classes")
    if bench.quick:
        return
    yield judged("classes without labels", folder, own(4, 2), "4 classes", "3")
    folder = bench.folder("val")
    paint(folder / "pets/train")
    paint(folder / "pets/val", ("cat", "cow", "pig"))
    yield judged("validation of other classes", folder, of_folder("pets"), "has 3 classes", "has 2", "'cow'")
    folder = bench.folder("one")
    paint(folder / "pets", ("cat",))
    yield judged("one class", folder, of_folder("pets"), "has 1 class", "at least 2")
    folder = bench.folder("unlabeled")
    paint(folder, ("pets",))
    yield judged("unlabeled", folder, of_folder("pets"), "pets has no class folders", "<class>/*")


def huge_png() -> bytes:
    """Return a PNG whose header claims 400 million pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _refold(path: Path) -> None:
    path.unlink()
    path.mkdir()


IMAGES: dict[str, Callable[[Path], object]] = {
    "zero bytes": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:45]),
    "400 megapixels": lambda path: path.write_bytes(huge_png()),
    "floating-point": lambda path: Image.new("F", (8, 8)).save(path, "TIFF"),
    "a folder": _refold,
}


def images(bench: Bench) -> Iterator[Trial]:
    kinds = list(IMAGES.items())[:1] if bench.quick else list(IMAGES.items())
    for name, spoil in kinds:
        folder = bench.folder(name)
        paint(folder / "pets")
        spoil(folder / "pets/dog/3.png")
        before = listing(folder)
        done = bench.fork(*of_folder("pets"), cwd=folder)
        problem = refusal(done, "pets/dog/3.png", most=1) or changes(folder, before)
        yield Trial(name, not problem, problem)
    for mode, suffix in [] if bench.quick else [("CMYK", "jpg"), ("P", "png")]:
        folder = bench.folder(mode)
        paint(folder / "pets")
        for i in (0, 1):
            (folder / f"pets/cat/{i}.png").unlink()
            Image.new(mode, (8, 8)).save(folder / f"pets/cat/{i}.{suffix}")
        done = bench.fork(*of_folder("pets"), cwd=folder)
        said = [line for line in (done.out + done.err).splitlines() if "converted" in line]
        problem = "" if done.status == 0 else success(done)
        if not problem and not any("2" in line and f"cat/0.{suffix}" in line for line in said):
            problem = f"conversion not told with count and first name: {said}"
        yield Trial(f"{mode} is converted and counted", not problem, problem)


PATHS = {
    "space": "a b", "accent": "é", "japanese": "日本", "quote": "it's", "parenthesis": "a(b", "equals": "a=b",
    "comma": "a,b", "tilde": "~a", "trailing slash": "a/", "200 characters": 200 * "x",
}  # fmt: skip


def paths(bench: Bench) -> Iterator[Trial]:
    for name, odd in list(PATHS.items())[:1] if bench.quick else PATHS.items():
        problem = _path(bench, bench.folder(name), odd)
        yield Trial(name, not problem, problem)
    if bench.quick:
        return
    folder = bench.folder("link")
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    problem = _path(bench, folder / "link", "x")
    yield Trial("a root that is a link", not problem, problem)
    problem = _path(bench, bench.folder("locale"), "é日本", env={"LC_ALL": "C"}, run=bench.cli)
    yield Trial("LC_ALL=C", not problem, problem)


def _path(
    bench: Bench, folder: Path, odd: str, env: dict[str, str] | None = None, run: Callable[..., Done] | None = None
) -> str:
    """Return what is wrong with a path for data, output and resume: it works quoted; unquoted, or with a hint."""
    run = run or bench.fork
    paint(folder / "data" / odd)
    done = run(*of_folder(f"data/{odd}", f"hydra.run.dir={quote_override(f'runs/{odd}')}"), cwd=folder, env=env)
    problem = success(done)
    if problem or not (folder / "runs" / odd / "run.json").is_file():
        return f"quoted: {problem or 'no run folder there'}"
    problem = success(run(*shlex.split(resume_command(Path("runs", odd)))[1:], cwd=folder, env=env))
    if problem:
        return f"resume, quoted: {problem}"
    bare = [argument for argument in of_folder("x") if not argument.startswith("data.root=")]
    commands = {
        "data": [*bare, f"data.root=data/{odd}", "hydra.run.dir=again"],
        "output": [*of_folder(f"data/{odd}"), f"hydra.run.dir=more/{odd}"],
        "resume": [f"resume=runs/{odd}"],
    }
    for what, arguments in commands.items():
        before = listing(folder)
        done = run(*arguments, cwd=folder, env=env)
        if done.status:
            problem = refusal(done, "quote", "'") or changes(folder, before)
        else:
            problem = success(done)
            place = {"data": "again", "output": f"more/{odd}", "resume": f"runs/{odd}"}[what]
            problem = problem or ("" if (folder / place / "run.json").is_file() else f"no run at {place}")
        if problem:
            return f"{what}, not quoted: {problem}"
    return ""


TESTS = (
    Test("E1", "wrong configs", 8, bad_configs),
    Test("E2", "missing or incomplete data sets", 2, datasets),
    Test("E3", "classes and labels that disagree", 1, classes),
    Test("E4", "files that are not images, or have other modes", 1, images),
    Test("E5", "odd paths for data, output and resume", 2, paths),
)
