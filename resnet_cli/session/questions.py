"""Questions of the first rank that only the process which started the ranks can answer, such as whether to prune."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.distributed import Store  # type: ignore[attr-defined]

from resnet_cli.distributed.ranks import RankGroup


class Questions:
    """Asks questions by way of the ranks' store.

    Args:
        ranks: The group, in the first rank's process.
    """

    def __init__(self, ranks: RankGroup) -> None:
        self._ranks, self._count = ranks, 0

    def prune(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether a search prunes the run after these rows of metrics."""
        number, self._count = self._count, self._count + 1
        self._ranks.send(f"question/{number}", {"name": "prune", "value": list(rows)})
        return bool(json.loads(self._ranks.wait_for(f"answer/{number}")))


def answer_questions(store: Store, answers: Mapping[str, Callable[[Any], Any]]) -> None:
    """Answer the questions that are in the ranks' store."""
    if not answers:
        return
    number = store.add("answered", 0)
    while store.check([f"question/{number}"]):
        question = json.loads(store.get(f"question/{number}"))
        store.set(f"answer/{number}", json.dumps(answers[question["name"]](question["value"])))
        number = store.add("answered", 1)
