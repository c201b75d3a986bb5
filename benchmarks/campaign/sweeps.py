"""Letter D: sweeps whose jobs fail, are invalid or are killed, and must not affect one another."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from campaign.bad_input import SMALL
from campaign.checks import changes, listing, refusal, tail
from campaign.harness import Bench, Done, Test, Trial, outcome, same

# A user's model that fails on purpose, and records memory, files and children of its process when built.
NET = """
import json, os, signal, torch
from pathlib import Path

class Net(torch.nn.Module):
    def __init__(self, in_size, num_classes, kind: str = "good"):
        super().__init__()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        note = {"rss": 4096 * pages, "files": len(os.listdir("/proc/self/fd")), "children": len(children)}
        with open(os.environ.get("NOTES", os.devnull), "a") as notes:
            notes.write(json.dumps(note) + "\\n")
        c, h, w = in_size
        self.kind, self.layer = kind, torch.nn.Linear(c * h * w, num_classes)
        self.weight = torch.nn.Parameter(torch.zeros(1 << 20))  # 4 MB to leak

    def forward(self, x):
        if self.training and self.kind.startswith("raises"):
            raise RuntimeError("this one raises")
        if self.training and self.kind.startswith("memory"):
            torch.empty(1 << 60)
        if self.training and self.kind.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        scores = self.layer(x.flatten(1)) + 0 * self.weight.sum()
        return scores * float("nan") if self.training and self.kind.startswith("nans") else scores
"""
OWN = (
    "data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3",
    "data.batch_size=32", "model._target_=swept.Net", "trainer.epochs=1",
)  # fmt: skip


NUMBERED = "hydra.sweep.subdir=${hydra:job.num}"  # else a folder's name has every override in it


def records(sweep: Path) -> dict[str, dict[str, Any]]:
    """`run.json` of each job by its folder's name."""
    return {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/run.json")}


def _own(bench: Bench, name: str) -> Path:
    folder = bench.folder(name)
    (folder / "swept.py").write_text(NET)
    return folder


def failures(bench: Bench) -> Iterator[Trial]:
    for kind in ("raises",) if bench.quick else ("raises", "memory", "nans", "killed"):
        for place in (1,) if bench.quick else (0, 3):
            folder = _own(bench, f"{kind} {place}")
            kinds = [f"good{i}" for i in range(2 if bench.quick else 4)]
            kinds.insert(place, kind)
            own = ["sweep.isolate=true"] if kind == "killed" else []
            start = bench.cli if own else bench.fork  # as users do: only then its jobs are forked
            done = start("-m", *OWN, *own, f"model.kind={','.join(kinds)}", "hydra.sweep.dir=s", cwd=folder)
            problem = _told(done, folder / "s", kinds, kind)
            yield Trial(f"job {place} of {len(kinds)}: {kind}", not problem, problem)


def _told(done: Done, sweep: Path, kinds: list[str], failing: str) -> str:
    """Return what is wrong with a sweep in which one job failed."""
    found = records(sweep)
    finished = [name for name, record in found.items() if record["status"] == "finished"]
    if done.status != 1:
        return f"exit {done.status}, not 1: {tail(done)}"
    if len(finished) != len(kinds) - 1:
        return f"{len(finished)} of {len(kinds) - 1} others finished"
    ends = done.out.rstrip().splitlines()[-len(kinds) - 6 :]
    missing = [kind for kind in kinds if not any(kind in line for line in ends)]
    if missing:
        return f"no table of all jobs at the end: {missing} not in it"
    if failing == "raises":
        logs = [path.read_text() for path in sweep.glob("*/train.log")]
        if not any("Traceback" in log and "this one raises" in log for log in logs):
            return "no traceback in the job's log"
    return ""


WRONG = {
    "a value": (["seed=0,1", "model.width=1,a"], "model.width: a"),
    "a key": (["seed=0,1", "modle.depth=3"], "modle: unknown key"),
    "an option": (["model=resnet8,resnet21"], "model=resnet21: no such option"),
    "a depth": (["model=cifar_resnet", "model.depth=20,21"], "model.depth=21: must be 6n+2"),
    "a range": (["optimizer.lr=0.1,-1"], "optimizer.lr: -1"),
    "two groups": (["model=resnet8,cnn", "model.stochastic_depth=0.1"], "model.stochastic_depth: unknown key"),
}


def invalid(bench: Bench) -> Iterator[Trial]:
    for name, (arguments, words) in list(WRONG.items())[: 1 if bench.quick else None]:
        folder = bench.folder(name)
        before = listing(folder)
        keys = {argument.partition("=")[0] for argument in arguments}
        done = bench.fork("-m", *(o for o in SMALL if o.partition("=")[0] not in keys), *arguments, cwd=folder)
        problem = refusal(done, words) or changes(folder, before)
        yield Trial(name, not problem, problem)


def alone(bench: Bench) -> Iterator[Trial]:
    folder = _own(bench, "x")
    yield from _alone(bench, folder, "", ["model=resnet8,cnn", "seed=0,1"], [])
    if bench.quick:
        return
    yield from _alone(bench, folder, "adamw ", ["optimizer=adamw,muon", "seed=2,3"], ["trainer.averaging=ema"])
    failing = ["optimizer.lr=1e30,0.1,0.05"]  # the first diverges
    yield from _alone(bench, folder, "after a failed one ", failing, ["model.dropout=0.3"], status=1)
    compiled = ["trainer.compile=model", "model=cnn", "model.channels=[4]", "model.hidden_dims=[8]"]
    yield from _alone(bench, folder, "compiled ", ["model.init=default,he"], compiled)


def _alone(
    bench: Bench, folder: Path, what: str, swept: list[str], fixed: list[str], status: int = 0
) -> Iterator[Trial]:
    """Compare every job of a sweep with the same job run alone."""
    keys = {argument.partition("=")[0] for argument in [*swept, *fixed]}
    base = [option for option in SMALL if option.partition("=")[0] not in keys] + fixed
    sweep = folder / f"sweep {what}"
    done = bench.fork("-m", *base, *swept, NUMBERED, f'hydra.sweep.dir="{sweep}"', cwd=folder, timeout=300)
    if done.status != status:
        yield Trial(f"{what}sweep", False, tail(done))
        return
    jobs: list[list[str]] = [[]]
    for argument in swept:
        key, _, values = argument.partition("=")
        jobs = [[*job, f"{key}={value}"] for job in jobs for value in values.split(",")]
    for number, job in enumerate(jobs):
        name = ",".join(job)
        run, single = sweep / str(number), folder / f"alone {what}{name}"
        if not (run / "run.json").exists() or records(sweep)[run.name]["status"] != "finished":
            if not status or number:
                yield Trial(f"{what}{name}", False, "did not finish in the sweep")
            continue
        done = bench.fork(*base, *job, f'hydra.run.dir="{single}"', cwd=folder, timeout=300)
        problem = tail(done) if done.status else same(outcome(single), outcome(run))
        yield Trial(f"{what}{name}", not problem, problem)


def growth(bench: Bench) -> Iterator[Trial]:
    folder = _own(bench, "x")
    count = 6 if bench.quick else 30
    kinds = ",".join(f"{'raises' if i % 2 else 'good'}{i}" for i in range(count))
    more = ["data.backend=stream", "data.workers=1", f"model.kind={kinds}", "hydra.sweep.dir=s"]
    env = {"NOTES": str(folder / "notes")}
    done = bench.cli("-m", *OWN, *more, cwd=folder, env=env, timeout=300)
    path = folder / "notes"
    notes = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if done.status != 1 or len(notes) != count:
        yield Trial(f"{count} jobs", False, f"exit {done.status} after {len(notes)} jobs: {tail(done)}")
        return
    first, last = notes[1], notes[-1]  # the first job imports what all need
    limits = {"rss": 50e6, "files": 0, "children": 0}
    for name, limit in limits.items():
        grown = last[name] - first[name]
        yield Trial(f"{name} after {count} jobs", grown <= limit, f"{first[name]:,} -> {last[name]:,}")
    if bench.quick:
        return
    compiled = [
        "trainer.compile=model",
        "model=cnn",
        "model.channels=[2]",
        "model.pool_every=8",
        "trainer.max_batches=1",
    ]
    base = [o for o in SMALL if not o.startswith("model")]
    sizes = ",".join(f"[{size}]" for size in range(2, 12))  # more shapes than torch compiles one function for
    done = bench.fork("-m", *base, *compiled, f"model.hidden_dims={sizes}", cwd=folder, timeout=400)
    said = [line for line in (done.out + done.err).splitlines() if "recompile_limit" in line or "cache_size" in line]
    yield Trial("ten compiled jobs", not done.status and not said, said[0] if said else f"exit {done.status}")


def killed(bench: Bench) -> Iterator[Trial]:
    folder = bench.folder("x")
    base = [option for option in bench.tiny if option != "name=x"]
    sweep = ["-m", *base, "seed=0,1,2", NUMBERED, "hydra.sweep.dir=s"]
    whole = bench.fork("-m", *base, "seed=0,1,2", NUMBERED, "hydra.sweep.dir=whole", cwd=folder)
    names = ["0", "1", "2"]
    if whole.status:
        yield Trial("the sweep", False, tail(whole))
        return
    goal = {name: outcome(folder / "whole" / name) for name in names}
    for number in range(1 if bench.quick else 10):
        if (folder / "s").exists():
            (folder / "s").rename(folder / f"before {number}")
        run = bench.start(*sweep, cwd=folder, forked=True)
        steps = bench.random.randint(0, 30)
        run.until(lambda: _steps(folder / "s") >= steps)  # noqa: B023  it is called at once
        run.kill()
        run.wait()
        finished = {n: _stamps(folder / "s" / n) for n, r in records(folder / "s").items() if r["status"] == "finished"}
        # By the sweep's own words or by the same command, whichever it is made for.
        done = bench.fork("-m", "resume=s", cwd=folder)
        if done.status == 2:
            done = bench.fork(*sweep, cwd=folder)
        if done.status:
            yield Trial(f"kill {number}", False, f"exit {done.status}: {tail(done)}")
            continue
        touched = [name for name, stamps in finished.items() if _stamps(folder / "s" / name) != stamps]
        different = [name for name in names if same(goal[name], outcome(folder / "s" / name))]
        problem = f"finished jobs touched: {touched}" if touched else f"not identical: {different}" if different else ""
        yield Trial(f"kill {number} with {len(finished)} jobs finished", not problem, problem)


def _steps(sweep: Path) -> int:
    """Return the steps of all jobs so far, four for each row of metrics."""
    return 4 * sum(len(path.read_text().splitlines()) for path in sweep.glob("*/metrics.jsonl"))


def _stamps(run: Path) -> dict[str, int]:
    """Return the modification time of each file."""
    return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


TESTS = (
    Test("D1", "one job of a sweep fails", 3, failures),
    Test("D2", "one combination is wrong", 2, invalid),
    Test("D3", "jobs against the same run alone", 3, alone),
    Test("D4", "thirty jobs, half of them failing", 2, growth),
    Test("D5", "SIGKILL to a sweep, and again", 2, killed),
)
