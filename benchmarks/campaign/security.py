"""Letter F: malicious files. None of their code runs, nothing is written outside of a folder, and no secret leaks."""

import io
import os
import pickle
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from campaign.bad_input import SMALL, cifar, cifar_archive, of_cifar
from campaign.checks import changes, listing, refusal, success
from campaign.harness import COMMAND, Bench, Test, Trial

SECONDS, BYTES = 5.0, 2e9  # what refusing may cost
SECRET = "hunter2-of-the-environment"


class Payload:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def canary(bench: Bench) -> Payload:
    """Create the file `canary` on unpickling."""
    return Payload(os.system, f"touch {bench.root / 'canary'}")


def _saved(path: Path, state: Any) -> None:
    import torch

    content = {"format": 1, "config": {}, "data": {}, "state": state, "checksum": "0"}
    torch.save(content, path)


def _nested(depth: int) -> Any:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _declared(path: Path, bench: Bench) -> None:
    """Save a tensor of 10 GB whose storage holds four bytes."""
    import torch

    buffer = io.BytesIO()
    torch.save({"format": 1, "config": {}, "data": {}, "state": {"x": torch.zeros(7777)}, "checksum": ""}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            # 7777 as pickled in two bytes becomes 2.5e9 in five.
            content = source.read(name).replace(b"M\x61\x1e", b"\x8a\x05" + (2_500_000_000).to_bytes(5, "little"))
            target.writestr(name, content[:4] if "/data/" in name else content)


def _script(path: Path, bench: Bench) -> None:
    import torch

    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), path)  # type: ignore[no-untyped-call]


def _distributed(path: Path, bench: Bench) -> None:
    path.mkdir()
    (path / ".metadata").write_bytes(pickle.dumps(canary(bench)))
    (path / "__0_0.distcp").write_bytes(pickle.dumps(canary(bench)))


def _evaluates(path: Path, bench: Bench) -> None:
    _saved(path, Payload(eval, f"open({str(bench.root / 'canary')!r}, 'w')"))


def _loads_bytes(path: Path, bench: Bench) -> None:
    import torch

    _saved(path, Payload(torch.storage._load_from_bytes, pickle.dumps(canary(bench))))


def _loads_file(path: Path, bench: Bench) -> None:
    """Has `torch.load` read another file without `weights_only`."""
    import functools

    import torch

    inner = bench.root / "inner.pkl"
    inner.write_bytes(pickle.dumps(canary(bench)))
    _saved(path, Payload(functools.partial(torch.load, weights_only=False), str(inner)))


def _legacy(path: Path, bench: Bench) -> None:
    """Save a tar of pickles in the format of torch 0.1."""
    with tarfile.open(path, "w:") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(canary(bench))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _objects(path: Path, bench: Bench) -> None:
    import numpy as np

    _saved(path, np.array([canary(bench)], dtype=object))


CHECKPOINTS: dict[str, Callable[[Path, Bench], object]] = {
    "os.system": lambda path, bench: _saved(path, canary(bench)),
    "eval": _evaluates,
    "_load_from_bytes": _loads_bytes,
    "torch.load inside": _loads_file,
    "legacy tar": _legacy,
    "TorchScript": _script,
    "distributed folder": _distributed,
    "array of objects": _objects,
    "10 GB declared": _declared,
    "deep nesting": lambda path, bench: _saved(path, _nested(300)),
    "wrong magic": lambda path, bench: path.write_bytes(b"MZ" + pickle.dumps(canary(bench))),
    "link to /etc/passwd": lambda path, bench: path.symlink_to("/etc/passwd"),
}


def _run_folder(bench: Bench, folder: Path) -> Path:
    """Create a finished run of a second."""
    done = bench.fork(*SMALL, "hydra.run.dir=run", cwd=folder)
    assert done.status == 0, done.err
    return folder / "run"


def _harmless(bench: Bench, name: str, folder: Path, commands: list[list[str]], **how: Any) -> Trial:
    """Check that each command rejects a file quickly, with little memory and without side effects."""
    before, problem = listing(folder), ""
    for arguments in commands:
        done = bench.fork(*arguments, cwd=folder, env={"SECRET": SECRET}, **how)
        problem = refusal(done, most=5, seconds=SECONDS) or changes(folder, before)
        if (bench.root / "canary").exists():
            problem = "the canary is there"
            (bench.root / "canary").unlink()
        if SECRET in done.out + done.err or "root:" in done.out + done.err:
            problem = "a secret was told"
        if done.peak_rss > BYTES:
            problem = problem or f"{done.peak_rss / 1e9:.1f} GB of memory"
        if problem:
            return Trial(name, False, f"{' '.join(arguments)[:80]}: {problem}")
    return Trial(name, True)


def checkpoints(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    run = _run_folder(bench, folder)
    for name, make in list(CHECKPOINTS.items())[:2] if bench.quick else CHECKPOINTS.items():
        for file in ("last.pt", "previous.pt", "best.pt"):
            place = run / "checkpoints" / file
            subprocess.run(["rm", "-rf", place], check=True)
            make(place, bench)
        more = [*SMALL, "hydra.run.dir=other"]
        commands = [["resume=run", "trainer.epochs=2"], ["init_from=run", *more]]
        yield _harmless(bench, name, folder, commands)


def _bomb() -> str:
    """Return 396 bytes of YAML that expand to a billion strings."""
    names = "abcdefghi"
    first = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    return first + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(names))


def _configs(bench: Bench) -> dict[str, dict[str, Any] | str]:
    """Hostile changes to a stored config, dots for levels; or a whole file."""
    touch, file = f"touch {bench.root / 'canary'}", str(bench.root / "canary")
    words = ["touch", file]
    inner = str(bench.root / "inner.pkl")
    nodes: dict[str, dict[str, Any]] = {
        "os.system": {"_target_": "os.system", "command": touch},
        "posix.system": {"_target_": "posix.system", "command": touch},
        "subprocess by another module": {"_target_": "shutil.os.system", "command": touch},
        "subprocess.run": {"_target_": "subprocess.run", "args": words},
        "subprocess.Popen": {"_target_": "subprocess.Popen", "_args_": [words]},
        "torch.load": {"_target_": "torch.load", "f": inner, "weights_only": False},
        "torch.load by alias": {"_target_": "torch.nn.modules.module.torch.load", "f": inner, "weights_only": False},
        "numpy.load": {"_target_": "numpy.load", "file": inner, "allow_pickle": True},
        "torch.hub.load": {
            "_target_": "torch.hub.load",
            "repo_or_dir": str(bench.root),
            "source": "local",
            "model": "x",
        },
        "open for writing": {"_target_": "builtins.open", "file": file, "mode": "w"},
        "any module": {"_target_": "evil_module.Net"},
        "partial": {"_target_": "functools.partial", "_args_": [{"_target_": "os.system", "command": touch}]},
    }
    return {
        **{name: {"model": node} for name, node in nodes.items()},
        "in the data": {"data.augment": nodes["os.system"]},
        "callbacks": {"hydra": {"callbacks": {"x": {"_target_": "os.system", "command": touch}}}},
        "job_logging": {"hydra": {"job_logging": {"handlers": {"x": {"()": "os.system", "command": touch}}}}},
        "reads the environment": {"name": "${oc.env:SECRET}", "model.depth": "${oc.env:SECRET}"},
        "names the environment": {"model._target_": "${oc.env:SECRET}"},
        "its own trust": {"trust": True, "model": nodes["os.system"]},
        "YAML bomb": _bomb(),
    }  # fmt: skip


def configs(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    run = _run_folder(bench, folder)
    good = (run / "config.yaml").read_text()
    (folder / "evil_module.py").write_text(f"open({str(bench.root / 'canary')!r}, 'w')\nclass Net: pass\n")
    (bench.root / "hubconf.py").write_text(f"open({str(bench.root / 'canary')!r}, 'w')\n")
    (bench.root / "inner.pkl").write_bytes(pickle.dumps(canary(bench)))
    for name, change in list(_configs(bench).items())[:: 7 if bench.quick else 1]:
        text = change if isinstance(change, str) else _changed(good, change)
        (run / "config.yaml").write_text(text)
        yield _harmless(bench, name, folder, [["resume=run", "trainer.epochs=2"], ["resume=run", "model.width=2"]])
    (run / "config.yaml").write_text(good)
    for option in ("--experimental-rerun", "--experimental-re"):
        arguments = [[f"{option}={bench.root / 'inner.pkl'}"], [option, str(bench.root / "inner.pkl")]]
        yield _harmless(bench, option, folder, arguments)
        if bench.quick:
            return


def _changed(text: str, change: dict[str, Any]) -> str:
    settings = yaml.safe_load(text)
    for key, value in change.items():
        *path, last = key.split(".")
        node = settings
        for name in path:
            node = node[name]
        node[last] = value
    return yaml.safe_dump(settings)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644, size: int = 0) -> Any:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.size = kind, link, mode, size
    return member


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        count = min(self.left, size if size >= 0 else self.left)
        self.left -= count
        return bytes(count)


def _archives(bench: Bench) -> dict[str, tuple[list[tuple[Any, bytes]] | Callable[[Path], None], bool]]:
    """Members put before those of a good set, or what writes the whole file; and whether it must be refused."""
    inside = "cifar-10-batches-py/"
    target = str(bench.root / "victim" / "file")
    planted = b"planted"

    def file(name: str, mode: int = 0o644) -> list[tuple[Any, bytes]]:
        return [(_member(name, mode=mode, size=len(planted)), planted)]

    def link(kind: bytes) -> list[tuple[Any, bytes]]:
        return [(_member(f"{inside}link", kind, target), b""), *file(f"{inside}link")]

    def zip_file(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../victim/new", planted)
            archive.writestr(f"{inside}../../../victim/new", planted)

    def bomb(path: Path) -> None:
        """Write an archive with one member of 3 GB that compresses to a thousandth of its size."""
        size = 3 << 30
        with tarfile.open(path, "w:gz") as tar:
            tar.addfile(_member(f"{inside}data_batch_1", size=size), _Zeros(size))

    def many_bombs(path: Path) -> None:
        """Write an archive of 1 GB in which each member is within the limits."""
        size = 1 << 26
        with tarfile.open(path, "w:gz") as tar:
            for i in range(16):
                tar.addfile(_member(f"{inside}part_{i}", size=size), _Zeros(size))

    def crowd(path: Path) -> None:
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            for i in range(100_000):
                tar.addfile(_member(f"{inside}{i}"))

    return {
        "..": ([*file("../victim/new"), *file(f"{inside}../../victim/new")], False),
        "absolute": (file(str(bench.root / "victim" / "new")), False),
        "symbolic link": (link(tarfile.SYMTYPE), False),
        "hard link": (link(tarfile.LNKTYPE), False),
        "FIFO": ([(_member(f"{inside}pipe", tarfile.FIFOTYPE), b"")], False),
        "setuid": (file(f"{inside}tool", mode=0o4755), False),
        "zip with ..": (zip_file, True),
        "bomb by declared size": (bomb, True),
        "bomb by real size": (many_bombs, True),
        "100,000 members": (crowd, True),
    }


def _names(folder: Path) -> set[str]:
    """List a folder without the files of printed lines, which the first command creates."""
    return {path.name for path in folder.iterdir()} - {"output"}


def archives(bench: Bench) -> Iterator[Trial]:
    source = cifar(bench.folder("cifar"))
    kinds = _archives(bench)
    for name in list(kinds)[:2] if bench.quick else kinds:
        content, must_fail = kinds[name]
        victim, folder = bench.folder("victim"), bench.folder("x")
        (victim / "file").write_text("as it was")
        archive = cifar_archive(folder / "sets", source)
        if callable(content):
            content(archive)
        else:
            with tarfile.open(archive, "w:gz") as tar:
                for member, data in content:
                    tar.addfile(member, io.BytesIO(data))
                tar.add(source, source.name)
        before, around = listing(victim), _names(bench.root)
        done = bench.fork(*of_cifar("data.verify=false", "data.download=false"), cwd=folder)
        problem = changes(victim, before)
        problem = problem or ("something was made outside" if _names(bench.root) - around else "")
        if not problem:
            problem = refusal(done, "cifar-10-python.tar.gz") if must_fail or done.status else success(done)
        odd = [
            path for path in folder.rglob("*") if path.is_symlink() or path.is_fifo() or path.stat().st_mode & 0o7000
        ]
        problem = problem or (f"unpacked: {odd[0]}" if odd else "")
        if not problem and must_fail and [path.name for path in (folder / "sets").iterdir()] != [archive.name]:
            problem = f"left: {sorted(path.name for path in (folder / 'sets').iterdir())}"
        if done.peak_rss > BYTES:
            problem = problem or f"{done.peak_rss / 1e9:.1f} GB of memory"
        yield Trial(name, not problem, problem)


def links(bench: Bench) -> Iterator[Trial]:
    """Plant links in a run that is resumed."""
    names = {
        "temporary names": [],
        "log": ["train.log"],
        "metrics": ["metrics.jsonl"],
        "checkpoints": ["checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt"],
        "config": [".hydra/config.yaml", "config.yaml", "run.json", "curves.png"],
    }
    for name in list(names)[:2] if bench.quick else names:
        folder = bench.folder("x")
        run = _run_folder(bench, folder)
        victim = folder / "victim"
        victim.write_text("as it was")
        for file in names[name]:
            place = run / file
            place.parent.mkdir(exist_ok=True)
            target = victim
            if place.suffix in (".pt", ".yaml", ".json") and place.exists():  # it is to be read through the link
                target = folder / f"victim-{place.name}"
                target.write_bytes(place.read_bytes())
            place.unlink(missing_ok=True)
            place.symlink_to(target)
        before = {path: path.read_bytes() for path in folder.glob("victim*")}
        problem = _resumed_beside(bench, folder) if not names[name] else ""
        if not problem and names[name]:
            done = bench.fork("resume=run", "trainer.epochs=2", cwd=folder)
            problem = refusal(done) if done.status else success(done)
        for path, content in before.items():
            if path.read_bytes() != content:
                problem = f"{path.name} was written"
        yield Trial(name, not problem, problem)
    if bench.quick:
        return
    folder = bench.folder("x")
    home = folder / "home"
    home.mkdir()
    for name in ("notes.txt", "train.log", "metrics.jsonl", "curves.png"):
        (home / name).write_text("as it was")
    (folder / "run").symlink_to("home")
    before_home = listing(home)
    done = bench.fork(*SMALL, "hydra.run.dir=run", cwd=folder)
    problem = (refusal(done) if done.status else success(done)) or ""
    after = listing(home)
    written = [name for name in before_home if after.get(name) != before_home[name]]
    problem = problem or (f"{written} written" if written else "")
    yield Trial("run folder", not problem, problem)


def _resumed_beside(bench: Bench, folder: Path) -> str:
    """Plant links at every temporary name that a resumed process could use, while it is paused at its start."""
    import signal
    import time

    process = bench.start("resume=run", "trainer.epochs=2", cwd=folder, forked=True)
    process.signal(signal.SIGSTOP)
    run = folder / "run"
    files = ("config.yaml", "run.json", "metrics.jsonl", "curves.png")
    saves = ("last.pt", "previous.pt", "best.pt")
    for name in (*files, *(f"checkpoints/{save}" for save in saves)):
        place = run / name
        place.with_name(f".{place.name}.{process.pid}.tmp").symlink_to(folder / "victim")
    time.sleep(0.1)
    process.signal(signal.SIGCONT)
    return success(process.wait())


# The program's list of checksums, changed by whoever changed the batch.
PATCHED = """
import hashlib, pathlib, sys
from dataclasses import replace
from resnet_cli.data.datasets import cifar
place = pathlib.Path("sets/cifar-10-batches-py")
sums = lambda names: {n: hashlib.md5((place / n).read_bytes()).hexdigest() for n in names}
batches = sums([f"data_batch_{i}" for i in range(1, 6)])
cifar.CIFAR10 = replace(cifar.CIFAR10, train=batches, test=sums(["test_batch"]), names=sums(["batches.meta"]))
from resnet_cli.commands.train import main
main()
"""


def batches(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    cifar(folder / "sets")
    command = (sys.executable, "-c", PATCHED)
    if not bench.quick:
        done = bench.cli(*of_cifar("data.download=false"), cwd=folder, command=command)
        problem = success(done)  # the list is the one that counts
        yield Trial("a good set with another list", not problem, problem)
        subprocess.run(["rm", "-rf", folder / "run"], check=True)
    (folder / "sets/cifar-10-batches-py/data_batch_2").write_bytes(pickle.dumps(canary(bench), 2))
    before = listing(folder)
    for name, more in {"checksum off": "data.verify=false", "list edited": "data.verify=true"}.items():
        edited = command if name == "list edited" else COMMAND
        done = bench.cli(*of_cifar("data.download=false", more), cwd=folder, command=edited)
        problem = refusal(done, "data_batch_2", most=1) or changes(folder, before)
        problem = problem or ("the canary is there" if (bench.root / "canary").exists() else "")
        yield Trial(name, not problem, problem)
        if bench.quick:
            return


TESTS = (
    Test("F1", "malicious checkpoints", 5, checkpoints, all_or_nothing=True),
    Test("F2", "malicious run folders", 4, configs, all_or_nothing=True),
    Test("F3", "malicious archives", 2, archives, all_or_nothing=True),
    Test("F4", "planted links", 2, links, all_or_nothing=True),
    Test("F5", "a CIFAR batch that is a program", 1, batches, all_or_nothing=True),
)
