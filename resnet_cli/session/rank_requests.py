"""Requests of the first rank that only the process which started the ranks can answer, such as whether to prune."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.distributed import Store  # type: ignore[attr-defined]

from resnet_cli.distributed.ranks import RankGroup


class RankRequests:
    """Makes requests by way of the ranks' store.

    Args:
        ranks: The group, in the first rank's process.
    """

    def __init__(self, ranks: RankGroup) -> None:
        self._ranks, self._count = ranks, 0

    def prune(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether a search prunes the run after these rows of metrics."""
        number, self._count = self._count, self._count + 1
        self._ranks.send(f"request/{number}", {"name": "prune", "value": list(rows)})
        return bool(json.loads(self._ranks.wait_for(f"answer/{number}")))


def answer_requests(store: Store, answers: Mapping[str, Callable[[Any], Any]]) -> None:
    """Answer the requests that are in the ranks' store."""
    if not answers:
        return
    number = store.add("answered", 0)
    while store.check([f"request/{number}"]):
        request = json.loads(store.get(f"request/{number}"))
        store.set(f"answer/{number}", json.dumps(answers[request["name"]](request["value"])))
        number = store.add("answered", 1)
