"""Give each job of a sweep on one workstation a slot on a GPU; a slot is a file lock, which ends with its process."""

import importlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from resnet_cli.config.messages import Problem
from resnet_cli.errors import InputError
from resnet_cli.runs.lock import exclusive
from resnet_cli.runs.names import folder_name
from resnet_cli.sweeps.folder import SweepDir

LAUNCHER = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"  # the `_target_` in configs
VISIBLE = "CUDA_VISIBLE_DEVICES"
# With this, `torch.cuda.is_available` does not start CUDA's driver, which reads `VISIBLE` once for the process: else a
# job that asks and then fails would leave its card to the process's next job, which may hold another.
ASK_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
POLL_SECONDS = 0.1  # between attempts to get a slot
_used_cards: list[str] = []  # the card that this process has used: CUDA reads `VISIBLE` once

Slot = tuple[str, int]  # card, number on the card


def requested_cards(config: DictConfig) -> list[str]:
    """Return the cards that the jobs of a sweep are to share; empty if it asks for none.

    Raises:
        InputError: `hydra.launcher.gpus` or `hydra.launcher.jobs_per_gpu` is invalid, or there are no cards.
    """
    if str(config.hydra.launcher._target_) != LAUNCHER:
        return []
    options: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    gpus, jobs = options.get("gpus"), options.get("jobs_per_gpu")
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InputError(
            Problem("hydra.launcher.jobs_per_gpu", "not allowed", jobs, allowed="a whole number 1 or more")
        )
    if gpus is None:
        return []
    if gpus == "auto":
        found = visible_cards()
        if not found:
            raise InputError("hydra.launcher.gpus=auto: this machine has no GPU that CUDA can use")
        return found
    is_list = isinstance(gpus, list) and bool(gpus) and len(set(map(str, gpus))) == len(gpus)
    if not is_list or not all(isinstance(card, int | str) and not isinstance(card, bool) for card in gpus):
        allowed = "auto, null or a list of different cards, such as [0,2]"
        raise InputError(Problem("hydra.launcher.gpus", "not allowed", gpus, allowed=allowed))
    known = visible_cards()
    missing = [str(card) for card in gpus if str(card) not in known]
    if missing:
        seen = ", ".join(known) or "none"
        raise InputError(f"hydra.launcher.gpus: no such GPU: {', '.join(missing)}; this process sees {seen}")
    return [str(card) for card in gpus]


def visible_cards() -> list[str]:
    """Return the cards that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    import torch  # late: only sweeps that ask for cards need it

    count = torch.cuda.device_count()  # without a context on a card
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


class GpuJoblibLauncher(Launcher):
    """The joblib launcher, whose jobs may each have a slot on a GPU.

    Args:
        gpus: The GPUs: null, `auto` or a list.
        jobs_per_gpu: Slots on each GPU.
        **options: Of the joblib launcher.
    """

    config: DictConfig  # `setup` is called by Hydra

    def __init__(self, gpus: Any = None, jobs_per_gpu: int = 1, **options: Any) -> None:
        self._jobs_per_gpu, self._options = jobs_per_gpu, options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the joblib launcher; called by Hydra."""
        joblib_launcher = importlib.import_module(LAUNCHER.rpartition(".")[0])  # of an extra
        cards = requested_cards(config)
        slots = [(card, number) for number in range(self._jobs_per_gpu) for card in cards]
        if slots:
            jobs = int(self._options.get("n_jobs") or -1)
            self._options["n_jobs"] = min(jobs, len(slots)) if jobs > 0 else len(slots)
            task_function = partial(_with_slot, task_function, slots)
        self._joblib = joblib_launcher.JoblibLauncher(**self._options)
        self._joblib.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, several at a time."""
        with warnings.catch_warnings():  # joblib starts another process in place of one whose job has left much memory
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
            results: Sequence[JobReturn] = self._joblib.launch(job_overrides, initial_job_idx)
        return results


def _with_slot(task: Callable[[DictConfig], Any], slots: Sequence[Slot], config: DictConfig) -> Any:
    """Run a job on the first card that has a free slot."""
    hydra = HydraConfig.get()
    sweep = SweepDir(Path(hydra.runtime.cwd) / hydra.sweep.dir)  # `hydra.job.chdir` has changed the working folder
    with gpu_slot(slots, should_stop=lambda: sweep.read_stop_request() is not None):
        return task(config)


@contextmanager
def gpu_slot(slots: Sequence[Slot], *, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold a slot inside the block, and let CUDA see its card alone. Waits until a slot is free.

    A process that has used a card already waits for a slot on that one.

    Args:
        slots: The slots, the preferred ones first.
        should_stop: Returns whether to stop waiting, since the job will not begin.
    """
    own = [slot for slot in slots if not _used_cards or slot[0] in _used_cards]
    with ExitStack() as resources:
        card = _acquire_slot(own, resources)
        while card is None and not should_stop():
            time.sleep(POLL_SECONDS)
            card = _acquire_slot(own, resources)
        if card is None:
            yield
            return
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = card
        os.environ.setdefault(ASK_NVML, "1")
        try:
            yield
        finally:
            if _has_used_cuda():
                _used_cards[:] = [card]
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


def _acquire_slot(slots: Sequence[Slot], resources: ExitStack) -> str | None:
    """Hold the first free slot, and return its card; None if none is free."""
    for card, number in slots:
        folder = _slots_folder() / folder_name(f"{card}-{number}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it stays: another process may be about to lock it
        try:
            resources.enter_context(exclusive(folder, "job on a GPU"))
        except InputError:  # taken
            continue
        return card
    return None


def _slots_folder() -> Path:
    """Return the folder of the locks of this machine's slots, which all sweeps of a user share."""
    owner = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir()) / f"resnet-cli-gpus-{owner}"


def _has_used_cuda() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
