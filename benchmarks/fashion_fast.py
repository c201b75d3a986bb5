"""Trains `experiment=fashion_fast` from several seeds for several nets, for comparison with Zhong et al. 2017.

    python benchmarks/fashion_fast.py --root DIR --runs FOLDER --minutes 45

`--root` is the value of `data.root`. Nets are trained on all 60,000 training images; the test images are read once,
after the last epoch. Runs are ordinary ones, in FOLDER/NET/seed-N; nets alternate unless `--order nets` is given. After
`--minutes` the current run is interrupted as by a user, and the same command resumes it exactly. Runs in the results
file are not trained again; their cards are kept beside that file. Other arguments are passed to `resnet-train`.
"""

import argparse
import json
import os
import re
import statistics
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from measuring import RESULTS, machine, table
from seeded_runs import is_finished, kept, read, train

from resnet_cli.report.goal import interval, one_sided_p
from resnet_cli.report.measures import Statistics

EXPERIMENT = ["experiment=fashion_fast", "data.download=false"]
PUBLISHED = {  # test error in percent after 300 epochs, without and with random erasing (arXiv 1708.04896, table 2)
    "resnet20": (4.39, 4.02), "resnet32": (4.16, 3.80), "resnet44": (4.41, 4.01), "resnet56": (4.39, 4.13),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    end = time.monotonic() + 60 * options.minutes
    command = [*EXPERIMENT, *options.overrides]
    record = kept(options.out, command) or {"program": "fashion_fast", "nets": {}}
    record |= {"command": command, "threads": options.threads, "machine": machine()}
    pairs = product(options.nets, range(options.seeds))
    for net, seed in pairs if options.order == "nets" else sorted(pairs, key=lambda pair: pair[1]):
        runs = record["nets"].setdefault(net, {})
        if f"seed {seed}" in runs:
            continue
        place = options.runs / net / f"seed-{seed}"
        chosen = [*EXPERIMENT, f"model={net}", f"data.root={options.root}", *options.overrides, f"seed={seed}"]
        left = end - time.monotonic()
        if not is_finished(place) and (left <= 0 or not train(chosen, place, left)):
            print(f"stopped in {net}, seed {seed}; the same command goes on")
            break
        runs[f"seed {seed}"] = read(place)
        keep_card(place, options.out.with_suffix("") / f"{net}-seed-{seed}.md")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{net}, seed {seed}: {runs[f'seed {seed}']}", flush=True)
    else:
        print("all runs are finished")
    print(report(record))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="the four files of Fashion-MNIST")
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER", help="where the runs are")
    parser.add_argument("--nets", nargs="+", choices=PUBLISHED, default=list(PUBLISHED)[:3])
    parser.add_argument(
        "--order", choices=("nets", "seeds"), default="seeds", help="nets: finish one net, then the next"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many; the same command goes on")
    parser.add_argument("--out", type=Path, default=RESULTS / "fashion_fast.json")
    parser.add_argument("overrides", nargs="*", help="further arguments of resnet-train")
    options = parser.parse_intermixed_args(arguments)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    return options


def keep_card(place: Path, copy: Path) -> None:
    """Copy the card of a run without its picture and links to files in the run folder."""
    lines = (place / "card.md").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("![", "- [code/]")))
    text = re.sub(r"\n{3,}", "\n\n", text).replace("[config.yaml](config.yaml)", "`config.yaml` of the run")
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text.rstrip() + "\n", encoding="utf-8")


def report(record: dict[str, Any]) -> str:
    """Format a table with a row for each net, with errors in percent."""
    rows = []
    for net, runs in record["nets"].items():
        errors = [100 - run["accuracy"] for run in runs.values()]
        found = Statistics.from_values(errors)
        if found is None:
            continue
        plain, erasing = PUBLISHED[net]
        several = found.std is not None
        rows.append([
            net, f"{plain:.2f}, {erasing:.2f}", f"{found.mean:.2f}" + (f" ± {found.std:.2f}" if several else ""),
            "{:.2f} to {:.2f}".format(*interval(found)) if several else "", str(found.n),
            ", ".join(f"{error:.2f}" for error in errors),
            f"{one_sided_p(plain - found.mean, found.std, found.n):.2g}" if found.std is not None else "",
            str(max(run["epochs"] for run in runs.values())),
            f"{statistics.median(run['seconds'] for run in runs.values()) / 60:.0f}",
        ])  # fmt: skip
    header = [
        "net", "published after 300 epochs, plain and with random erasing", "test error here, %", "95 % interval", "n",
        "runs", "one-sided p, below the plain figure", "epochs", "minutes per run",
    ]  # fmt: skip
    return table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
