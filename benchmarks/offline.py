"""Packs everything that measurements on a machine without network need into a folder to copy with the repository.

    python benchmarks/offline.py FOLDER --published airbench94_muon.py --data cifar10-jpeg.tar.gz

On the machine, in the repository's root, in three calls, each of which ends within nine minutes:

    bash FOLDER/run.sh OUT measure      benchmarks/gpu.py
    bash FOLDER/run.sh OUT test         benchmarks/cuda_tests.py: tests that do not compile
    bash FOLDER/run.sh OUT compiled     benchmarks/cuda_tests.py: the others, four at a time

They write their results to OUT; copy `gpu.json` and `cuda_tests.json` to benchmarks/results. Tests that have not ended
with their call are not in the file. The folder contains wheels of Hydra and OmegaConf. The machine needs Python, the
other requirements of the package, and for the tests pytest, pytest-xdist, hypothesis, scipy and markdown-it-py.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

WHEELS = ("hydra-core>=1.3.8,<1.5", "omegaconf>=2.3,<2.4", "antlr4-python3-runtime==4.9.3")  # all are pure Python
MOST = 60 * 2**20  # bytes
RUN = """\
#!/bin/bash
# bash run.sh OUT measure|test|compiled: install the wheels beside this script, and run a program of the repository.
set -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$here"/wheels/*.whl || exit
export PYTHONPATH="$PWD:$site" PYTHONUNBUFFERED=1 RESNET_CLI_CACHE="$site/decoded"
run_tests() {
  timeout 535 python3 benchmarks/cuda_tests.py --out "$out/cuda_tests.json" "${@:2}" 2>&1 | tee "$out/$1.log"
}
case $2 in
  measure) timeout 535 python3 benchmarks/gpu.py --out "$out/gpu.json" {arguments} 2>&1 | tee "$out/gpu.log" ;;
  test) run_tests test -k "not compile and not record" ;;
  compiled) run_tests compiled --add -n 4 -k "compile or record" ;;
  *) echo "error: run.sh OUT measure|test|compiled" >&2; exit 2 ;;
esac
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--published", type=Path, metavar="FILE", help="airbench94_muon.py")
    parser.add_argument("--data", type=Path, metavar="ARCHIVE", help="images of 32x32, train/CLASS/* and test/CLASS/*")
    options = parser.parse_args(arguments)
    given = {"--published": options.published, "--data": options.data}
    missing = [path for path in given.values() if path is not None and not path.is_file()]
    if missing:
        print(*(f"error: no such file: {path}" for path in missing), sep="\n", file=sys.stderr)
        return 2
    pack(options.folder, {name: path for name, path in given.items() if path is not None})
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: {size / 2**20:.1f} MiB; on the machine: bash {options.folder}/run.sh OUT measure")
    if size > MOST:
        print(f"warning: over {MOST / 2**20:.0f} MiB", file=sys.stderr)
    return 0


def pack(folder: Path, files: dict[str, Path]) -> None:
    """Write wheels, files and the script that runs the programs with them."""
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder / "wheels"), *WHEELS]
    subprocess.run(command, check=True)
    arguments = []
    for option, path in files.items():
        shutil.copyfile(path, folder / path.name)
        arguments.append(f'{option} "$here/{path.name}"')
    (folder / "run.sh").write_text(RUN.replace("{arguments}", " ".join(arguments)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
