"""How several ranks start a run: each on a device of its own, with the state that the first one has read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch
from torch import nn

from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.distributed.existing import existing_ranks
from resnet_cli.distributed.options import ProcessOptions, options_of
from resnet_cli.distributed.ranks import Ranks
from resnet_cli.errors import InputError
from resnet_cli.runs.weight_files import state_tensors
from resnet_cli.session.load import InitialWeights
from resnet_cli.session.rank_process import takes_cards
from resnet_cli.training.trainer import ClassifierTrainer


def uses_ranks(options: ProcessOptions, ranks: Ranks) -> bool:
    """Return True if a run is one of several processes, or sums its gradients as several do."""
    return options.processes > 1 or options.shards is not None or ranks.size > 1 or existing_ranks() is not None


@contextmanager
def fixed_threads(options: ProcessOptions) -> Iterator[None]:
    """Compute on one thread inside this block if sums are to have the same bits everywhere: threads split them too."""
    with use_threads(None if options.shards is None else 1):
        yield


@contextmanager
def use_threads(threads: int | None) -> Iterator[None]:
    """Use this number of threads inside the block, since sums are split by it. None changes nothing."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_card(config: RunConfig, ranks: Ranks) -> RunConfig:
    """Return a config with the CUDA device of this rank, if the run is on such devices."""
    if ranks.size == 1 or not takes_cards(config.trainer):
        return config
    return replace(config, trainer={**config.trainer, "device": f"cuda:{torch.cuda.current_device()}"})


def parts_of_batches(node: Node, ranks: Ranks) -> int:
    """Return the number of parts of a batch that batch norm treats separately."""
    options = options_of(node)
    return 1 if options.sync_batch_norm else options.shards or ranks.size


def share_steps(trainer: ClassifierTrainer, node: Node, ranks: Ranks) -> None:
    """Let a trainer take its steps together with other ranks, or in shards; one process does neither by default."""
    options = options_of(node)
    if options.sync_batch_norm and options.shards is not None and trainer.device.type != "cpu":
        raise InputError("trainer.sync_batch_norm=true: together with trainer.shards on a CPU only")
    if ranks.size > 1 or options.shards is not None:
        trainer.share_steps(ranks, options.shards, sync_batch_norm=options.sync_batch_norm)


def shared_weights(ranks: Ranks, model: nn.Module, load: Callable[[], InitialWeights]) -> InitialWeights:
    """Load the weights that a run starts with on the first rank, and give every rank the same."""
    if ranks.size == 1:
        return load()
    found = ranks.from_first(lambda: asdict(load()))
    ranks.broadcast_(list(state_tensors(model.state_dict()).values()))
    return InitialWeights(**found)
