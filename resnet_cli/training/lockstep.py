"""Lockstep: functions in threads of their own that take turns and exchange tensors.

Shards of a batch that are normalised together have to meet at each batch-norm layer, in the forward and in the backward
pass. One runs up to the layer, then the next; when the last has arrived, the first continues with the sum. Only one
thread runs at any time, so that results do not depend on the scheduler, and each has a random state of its own.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from resnet_cli.seeding import python_random_state, set_python_random_state

T = TypeVar("T")


class _AbandonedError(Exception):
    """Ends a thread because another one has failed."""


class Lockstep(Generic[T]):
    """Runs functions in lockstep; all of them must exchange tensors the same number of times.

    Args:
        combine: Tensors passed to `exchange` by the functions, in order -> the tensor that each of them receives.
        python: Each function also has its own states of the global generators of Python and NumPy, not only of torch's.
    """

    def __init__(self, combine: Callable[[Sequence[Tensor]], Tensor], *, python: bool = False) -> None:
        self._combine, self._python = combine, python
        self._condition = threading.Condition()
        self._turn = 0
        self._error: BaseException | None = None
        self._given: list[Tensor] = []
        self._combined = torch.empty(0)
        self._random: list[tuple[Tensor, Any]] = []

    def run(self, functions: Sequence[Callable[[int], T]]) -> list[T]:
        """Call each function with its number, and return their results.

        Raises:
            Exception: a function raised it.
        """
        results: dict[int, T] = {}
        count = len(functions)
        self._turn, self._error, self._given = 0, None, [torch.empty(0)] * count
        self._random = [self._random_state()] * count

        def work(number: int) -> None:
            try:
                self._take_turn(number)
                results[number] = functions[number](number)
                self._pass_on(number)
            except _AbandonedError:
                return
            except BaseException as error:
                with self._condition:
                    self._error = error
                    self._condition.notify_all()

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return [results[number] for number in range(count)]

    def exchange(self, number: int, tensor: Tensor) -> Tensor:
        """Return the combined tensors of all functions; each function calls this with its number and tensor."""
        self._given[number] = tensor
        if number == len(self._given) - 1:
            self._combined = self._combine(self._given)
        self._pass_on(number)
        self._take_turn(number)
        return self._combined.clone()

    def _take_turn(self, number: int) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._turn == number or self._error is not None)
            if self._error is not None:
                raise _AbandonedError
        state, python = self._random[number]
        torch.set_rng_state(state)
        if python is not None:
            set_python_random_state(python)

    def _pass_on(self, number: int) -> None:
        self._random[number] = self._random_state()
        with self._condition:
            self._turn = (number + 1) % len(self._given)
            self._condition.notify_all()

    def _random_state(self) -> tuple[Tensor, Any]:
        return torch.get_rng_state(), python_random_state() if self._python else None
