"""Score the selected weights of a run on its test set, on one process or on several."""

from typing import Any

from resnet_cli.config.run_config import RunConfig
from resnet_cli.data import Loaders
from resnet_cli.runs.weight_files import state_tensors
from resnet_cli.training.control import RunControl
from resnet_cli.training.metrics import Scores
from resnet_cli.training.trainer import ClassifierTrainer


def score_test_set(trainer: ClassifierTrainer, loaders: Loaders, config: RunConfig, control: RunControl) -> Scores:
    """Return the scores on the test set; of several ranks, the first has loaded the selected weights.

    Raises:
        StoppedError: a signal arrived.
    """
    state = trainer.state
    trainer.ranks.broadcast_(list(state_tensors(state.model.state_dict()).values()))
    state.average = None
    thresholds, tta = (state.best or {}).get("thresholds"), config.trainer.get("test_tta") or "none"
    options: dict[str, Any] = {"thresholds": thresholds} if thresholds else {}
    options |= {"tta": tta} if tta != "none" else {}
    return trainer.evaluate_loader(loaders.test, trainer.max_batches, control, **options)
