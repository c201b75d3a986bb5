"""Report the epochs of a search's job to its trial, which may prune the job."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from resnet_cli.sweeps.search.study import open_study

# Passes the number of its trial to a job, in `hydra.job.env_set`, which is no part of the job's own config.
TRIAL_VARIABLE = "RESNET_CLI_TRIAL"


class TrialReporter:
    """Reports each epoch of a job to its trial once, and returns whether to prune the job.

    Training calls it as `prune`; see `resnet_cli.training.control.RunControl`.

    Args:
        hydra: The node `hydra` of the job's composed config.
        number: The number of the trial.
        select_by: The metric that the trials are compared by.
    """

    def __init__(self, hydra: Any, number: int, select_by: str) -> None:
        self.number, self.select_by = number, select_by
        self._hydra, self._resources = hydra, ExitStack()
        self._trial: Any = None
        self._reported: set[int] = set()

    def __enter__(self) -> "TrialReporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Report the epochs that the trial lacks, also those before an interruption; return whether to prune."""
        if not rows:
            return False
        if self._trial is None:
            study = self._resources.enter_context(open_study(self._hydra))
            self._trial = study.load_trial(self.number)
            self._reported = set(study.study.get_trials(deepcopy=False)[self.number].intermediate_values)
        for row in rows:
            if row["epoch"] not in self._reported and row.get(self.select_by) is not None:
                self._trial.report(float(row[self.select_by]), step=row["epoch"])
                self._reported.add(row["epoch"])
        return bool(self._trial.should_prune())


@contextmanager
def trial_reporter(hydra: Any, select_by: str) -> Iterator[TrialReporter | None]:
    """Yield the reporter of a job, or None unless a search has chosen the job.

    Args:
        hydra: The node `hydra` of the job's composed config.
        select_by: The metric that the trials are compared by.
    """
    number = hydra.job.env_set.get(TRIAL_VARIABLE)
    if number is None:
        yield None
        return
    with TrialReporter(hydra, int(number), select_by) as reporter:
        yield reporter
