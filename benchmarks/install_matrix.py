"""Installs the wheel and the sdist in clean environments outside of the repository, and runs the commands there.

    pip install build uv pipx
    python benchmarks/install_matrix.py --work FOLDER            # about 3 minutes and 6 GB for each environment
    python benchmarks/install_matrix.py --work FOLDER --only pipx --again

An environment is deleted after its commands have run; the caches of uv and pip are in FOLDER, so that environments
share files. `INSTALLS` lists the Python, torch and Hydra of each; a Python that is not on this machine is recorded as
missing. benchmarks/results/install.json is written after each environment and read at the start, so that finished ones
are not repeated. `--table` prints it as the table of docs/start/install.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "install.json"
RUN = ["resnet-train", "trainer.epochs=2", "hydra.run.dir=run"]
COMMANDS = {  # command -> word that it must print; its exit status must be 0
    "version": (["resnet-train", "--version"], "resnet-cli"),
    "list": (["resnet-info", "--list"], "model=resnet20"),
    "conf": (["resnet-train", "model=resnet20", "experiment=he2015", "--cfg", "job"], "milestones"),
    "train": (RUN, "test accuracy"),
    "predict": (["resnet-predict", "run", "run/samples.png"], "%"),
    "resume": (["resnet-train", "resume=run", "trainer.epochs=3"], "test accuracy"),
}


@dataclass(frozen=True)
class Install:
    """A combination of Python, file, installer and other packages."""

    name: str
    python: str
    file: str = "wheel"
    tool: str = "uv pip"
    packages: tuple[str, ...] = ()


OLDEST = ("torch==2.11.*", "hydra-core==1.3.*")
HYDRA_14 = ("hydra-core>=1.4.0rc1", "omegaconf>=2.4.0rc1")
INSTALLS = [
    Install("3.11, newest", "3.11"),
    Install("3.13, newest", "3.13"),
    Install("3.13, Hydra 1.4", "3.13", packages=HYDRA_14),
    Install("3.13, uv run", "3.13", tool="uv run"),
    Install("3.13, uvx", "3.13", tool="uvx"),
    Install("3.11, sdist", "3.11", file="sdist"),
    Install("3.11, Hydra 1.4", "3.11", packages=HYDRA_14),
    Install("3.12, newest", "3.12"),
    Install("3.11, oldest", "3.11", packages=OLDEST),
    Install("3.11, oldest torch, Hydra 1.4", "3.11", packages=(*OLDEST[:1], *HYDRA_14)),
    Install("3.13, oldest", "3.13", packages=OLDEST),
    Install("3.11, pipx", "3.11", tool="pipx"),
    Install("3.11, pip", "3.11", tool="pip"),
    Install("3.14, newest", "3.14"),
    Install("3.14, Hydra 1.4", "3.14", packages=HYDRA_14),
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="for builds, environments and caches")
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", default=[""], help="installs with one of these in the name"
    )
    parser.add_argument("--again", action="store_true", help="also those that install.json has")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of the results, and install nothing")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    if options.table:
        print(table(results))
        return 0
    if options.work is None:
        parser.error("--work: which folder?")
    work = options.work.resolve()
    files = build(work)
    for install in INSTALLS:
        if (install.name in results and not options.again) or not any(word in install.name for word in options.only):
            continue
        results[install.name] = attempt(install, files, work)
        print(f"{install.name}: {results[install.name]['outcome']}", flush=True)
        ordered = {known.name: results[known.name] for known in INSTALLS if known.name in results}
        options.out.write_text(json.dumps(ordered, indent=2) + "\n")
    return int(any(result["outcome"] not in ("works", "no such Python here") for result in results.values()))


def build(work: Path) -> dict[str, Path]:
    """Build the sdist of the committed files, and the wheel from the sdist; return their paths by kind."""
    shutil.rmtree(work / "dist", ignore_errors=True)
    shutil.rmtree(work / "source", ignore_errors=True)
    source = work / "source"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(REPOSITORY), "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(work / "dist"), str(source)], check=True)
    shutil.rmtree(source)
    (wheel,), (sdist,) = (work / "dist").glob("*.whl"), (work / "dist").glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def attempt(install: Install, files: dict[str, Path], work: Path) -> dict[str, Any]:
    """Install in a new environment and run every command in an empty folder; return the outcome."""
    result: dict[str, Any] = {
        "python": install.python, "file": install.file, "tool": install.tool, "packages": list(install.packages),
        "built": files[install.file].name, "outcome": "works",
    }  # fmt: skip
    python = find_python(install.python)
    if python is None:
        return result | {"outcome": "no such Python here"}
    place = work / "place"  # subfolders: env for the environment, home for files in $HOME, cwd for the runs
    shutil.rmtree(place, ignore_errors=True)
    (place / "cwd").mkdir(parents=True)
    try:
        begun = time.perf_counter()
        prefix = prepare(install, python, files[install.file], place, work)
        result["install_seconds"] = round(time.perf_counter() - begun)
        for name, (command, word) in COMMANDS.items():
            begun = time.perf_counter()
            printed = call([*prefix(command[0]), *command[1:]], place, work)
            result[f"{name}_seconds"] = round(time.perf_counter() - begun, 1)
            if word not in printed:
                raise RuntimeError(f"{name}: {word!r} is not in {printed[-500:]}")
        record = json.loads((place / "cwd" / "run" / "run.json").read_text(encoding="utf-8"))
        result |= {"versions": record["versions"], "test": record["test"]}
    except (RuntimeError, OSError) as error:
        result["outcome"] = f"fails: {error}"
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return result


def find_python(version: str) -> str | None:
    """Return the interpreter of a version, as found by uv in its own folder, on the PATH or in pyenv's folder."""
    folders = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if folders:
        return str(folders[-1])
    found = subprocess.run(
        ["uv", "python", "find", "--no-python-downloads", version], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def prepare(install: Install, python: str, file: Path, place: Path, work: Path) -> Any:
    """Install the file, and return a function that returns the command line of an installed command."""
    env = place / "env"
    inside = lambda command: [str(env / "bin" / command)]  # noqa: E731
    pre = ["--prerelease", "allow"] if any("rc" in package for package in install.packages) else []
    if install.tool == "uv pip":
        call(["uv", "venv", "-q", "--python", python, str(env)], place, work)
        call(["uv", "pip", "install", "-q", *pre, "--python", str(env), str(file), *install.packages], place, work)
        return inside
    if install.tool == "pip":
        call([python, "-m", "venv", str(env)], place, work)
        call([str(env / "bin/pip"), "install", "-q", str(file), *install.packages], place, work)
        return inside
    if install.tool == "pipx":
        call(["pipx", "install", "--python", python, str(file)], place, work)
        return inside
    with_file = {"uv run": ["--no-project", "--with"], "uvx": ["--from"]}[install.tool]
    tool = install.tool.split()
    call([*tool, *pre, "--python", python, *with_file, str(file), "resnet-train", "--version"], place, work)
    return lambda command: [*tool, *pre, "--python", python, *with_file, str(file), command]


def call(command: list[str], place: Path, work: Path) -> str:
    """Run a command in an empty folder with its own environment variables; return its output.

    Raises:
        RuntimeError: the exit status is not 0; the message has the end of the output.
    """
    kept = ("PATH", "LANG", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "OMP_NUM_THREADS")
    variables = {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(place / "home"), "UV_CACHE_DIR": str(work / "uv"), "PIP_CACHE_DIR": str(work / "pip"),
        "PIPX_HOME": str(place / "pipx"), "PIPX_BIN_DIR": str(place / "env" / "bin"), "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never", "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    done = subprocess.run(
        command, cwd=place / "cwd", env=variables, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command[:4]))}: status {done.returncode}: {done.stderr[-800:]}")
    return done.stdout + done.stderr


def table(results: dict[str, Any]) -> str:
    """Return the results as the rows of docs/start/install.md."""
    lines = [
        "| installed with | file | Python | torch | torchvision | Hydra | OmegaConf | result |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results.values():
        versions = result.get("versions", {})
        names = ("torch", "torchvision", "hydra-core", "omegaconf")
        cells = [result["tool"], result["file"], versions.get("python", result["python"])]
        cells += [versions.get(name, "-") for name in names] + [result["outcome"].split(":")[0]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
