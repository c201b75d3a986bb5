"""Processes that torchrun or srun has started: the first one leads, the others follow, all end alike."""

import gc
import multiprocessing
import os
import socket
import threading
import time
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from resnet_cli.distributed import existing
from resnet_cli.distributed.environment import ExistingRank
from resnet_cli.distributed.outcomes import RankFailedError
from resnet_cli.distributed.ranks import RankGroup, Ranks
from resnet_cli.errors import InputError, MachineError, NotIdenticalError, StoppedError
from resnet_cli.session import existing_ranks
from resnet_cli.session.rank_process import require_own_card, use_card
from tests.support.ranks import faulty
from tests.support.runs import record_of, rows_of, tiny


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def in_step(train, tmp_path, monkeypatch):
    """Runs resnet-train as the first of two tasks of a SLURM step; returns status, error and the other's status."""
    from resnet_cli.commands.train.main import run

    def follow(arguments):
        os.environ["SLURM_PROCID"] = os.environ["SLURM_LOCALID"] = "1"
        os.chdir(tmp_path)
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            with (tmp_path / "other.txt").open("w") as errors, redirect_stderr(errors):
                status = run(list(arguments))
            os._exit(status)

    def run_both(*arguments):
        port = free_port()
        step = {"JOB_ID": 7, "STEP_ID": 0, "STEP_NUM_TASKS": 2, "STEP_NODELIST": "127.0.0.1", "PROCID": 0, "LOCALID": 0}
        for name, value in step.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        monkeypatch.setenv("MASTER_PORT", str(port))
        gc.collect()  # a store that a forked process frees would wait for its threads
        other = multiprocessing.get_context("fork").Process(target=follow, args=(arguments,), daemon=True)
        other.start()
        status, _, err = train(*arguments)
        other.join(20)
        return status, err, other.exitcode

    monkeypatch.setattr("resnet_cli.distributed.ranks.POLL_SECONDS", 0.01)
    return run_both


def test_tasks_of_a_step_train_each_job_of_a_sweep_together(in_step, tmp_path):
    assert in_step(*tiny("-m", "seed=0,1", "trainer.epochs=1", "hydra.sweep.dir=sweep")) == (0, "", 0)
    runs = sorted(path.parent for path in (tmp_path / "sweep").glob("*/run.json"))
    assert [record_of(run)["processes"] for run in runs] == [2, 2]
    assert [len(rows_of(run)) for run in runs] == [1, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "other.txt"}, "the other task has its own folder"


@pytest.fixture
def one_card(monkeypatch):
    """This process sees one CUDA device; returns the numbers of the devices that are selected."""
    selected = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", selected.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: selected[-1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"GPU-{device}"))
    return selected


class Gathered(Ranks):
    """One of several ranks, with the cards of all of them."""

    def __init__(self, cards):
        super().__init__()
        self.size, self.cards = len(cards), cards

    def gather(self, value):
        return self.cards


def test_a_rank_uses_the_only_card_that_it_sees(one_card, monkeypatch):
    for rank in (0, 1, 3):
        assert use_card(rank, {"device": "auto"})
    assert one_card == [0, 0, 0]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert use_card(3, {"device": "cuda"})
    assert one_card[-1] == 3
    assert not use_card(3, {"device": "cpu"})


def test_ranks_with_cards_of_their_own_train_and_two_on_one_do_not(one_card):
    use_card(0, {"device": "auto"})
    require_own_card(Gathered([("a", "GPU-0"), ("a", "GPU-1"), ("b", "GPU-0"), None, None]), uses_cuda=True)
    require_own_card(Gathered([None, None]), uses_cuda=False)
    with pytest.raises(InputError, match=r"^trainer.processes=3: ranks 0 and 2 have the same CUDA device, on a; "):
        require_own_card(Gathered([("a", "GPU-0"), ("b", "GPU-0"), ("a", "GPU-0")]), uses_cuda=True)


def test_tasks_of_a_step_that_share_a_card_are_refused(in_step, one_card, tmp_path, monkeypatch):
    monkeypatch.setattr(existing, "RankGroup", lambda *places, cuda, **others: RankGroup(*places, **others))
    status, err, other = in_step(*tiny("hydra.run.dir=run", "trainer.device=auto"))
    assert (status, other) == (2, 2)
    assert err == (
        f"error: trainer.processes=2: ranks 0 and 1 have the same CUDA device, on {socket.gethostname()}; start as "
        "many as there are devices, or use trainer.device=cpu\n"
    )
    assert not (tmp_path / "run").exists()


def test_tasks_of_a_step_end_with_the_status_of_the_first(in_step, tmp_path):
    began = time.monotonic()
    assert in_step(*tiny("model.dept=3")) == (2, "error: model.dept: unknown key; did you mean model.depth?\n", 2)
    status, err, other = in_step(*tiny("data.augment.cutout=99", "hydra.run.dir=run"))
    assert (status, other) == (2, 2)
    assert err.startswith("error: data.augment.cutout=99")
    assert not (tmp_path / "run").exists()
    assert time.monotonic() - began < 10


def test_an_error_of_the_first_task_is_printed_once(in_step, tmp_path):
    assert in_step(*tiny("hydra.run.dir=run", "trainer.epochs=1")) == (0, "", 0)
    (tmp_path / "run" / "train.log").unlink()
    (tmp_path / "run" / "train.log").mkdir()  # found when the folder is opened, after the other has joined
    status, err, other = in_step("resume=run", "trainer.epochs=2")
    assert (status, err.count("\n"), other) == (4, 1, 4), err
    assert "run/train.log: cannot be written" in err
    assert (tmp_path / "other.txt").read_text() == ""


@pytest.mark.slow
def test_a_task_that_fails_is_one_line_on_the_others(in_step, tmp_path):
    options = tiny("model=faulty", "hydra.run.dir=run", "trainer.collective_timeout=7")
    status, err, other = in_step(*faulty(tmp_path, "raise")[:2], *options)
    assert (status, err.count("\n"), other) == (1, 1, 1), err
    assert err.startswith("error: a rank ended, or did not answer within 7 s (trainer.collective_timeout): ")
    assert (tmp_path / "other.txt").read_text().endswith("rank 1: RuntimeError: the cable is loose\n")


@pytest.fixture
def two_ranks(monkeypatch):
    """Two ranks in this process, whose groups only note how they are left."""

    class Group(Ranks):
        def __init__(self, rank, size, store, **options):
            super().__init__()
            self.rank, self.size = rank, size

        def close(self):
            left[self.rank] = "close"

        def abandon(self):
            left[self.rank] = "abandon"

    left, port = {}, free_port()
    monkeypatch.setattr(existing, "RankGroup", Group)
    monkeypatch.setattr("resnet_cli.distributed.ranks.POLL_SECONDS", 0.01)
    ranks = [existing.ExistingRanks(ExistingRank(rank, 2, rank, 2, "127.0.0.1", port)) for rank in range(2)]
    yield ranks, left
    ranks.clear()


def leave(ranks, errors, *, cuda=True):
    """Let ranks leave a job at the same time, each with an error (class, arguments) or, for None, at its end."""

    def run(rank, error):
        with suppress(Exception), ranks[rank].joined(timeout=5, cuda=cuda):
            if error is not None:
                raise error[0](*error[1:])

    threads = [threading.Thread(target=run, args=item) for item in errors.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


MISSING, FULL = (InputError, "data.root: missing"), (MachineError, 28, "run: no space left on device")
LOOSE, ABORTED = (RuntimeError, "the cable is loose"), (RuntimeError, "NCCL communicator was aborted")


@pytest.mark.parametrize(
    ("errors", "cuda", "left_by"),
    [
        ({0: None, 1: None}, True, "close"),
        ({0: MISSING, 1: MISSING}, True, "close"),
        ({0: LOOSE, 1: LOOSE}, True, "close"),  # such as too little memory on each
        ({0: (NotIdenticalError, "another loss"), 1: None}, True, "close"),
        ({0: None, 1: LOOSE}, True, "close"),
        ({0: LOOSE}, False, "close"),
        ({0: LOOSE}, True, "abandon"),
        ({0: FULL}, True, "abandon"),
        ({0: ABORTED}, True, "abandon"),
        ({0: (RankFailedError, "rank 1: RuntimeError: the cable is loose")}, True, "abandon"),
        ({1: MISSING}, True, "abandon"),
    ],
    ids=str,
)
def test_a_rank_that_fails_alone_on_cuda_does_not_wait_for_the_others(two_ranks, monkeypatch, errors, cuda, left_by):
    """NCCL would, in `destroy_process_group`, while they wait for this rank; nothing would be printed meanwhile."""
    ranks, left = two_ranks
    for name in ("FAREWELL_SECONDS", "FIRST_SECONDS"):
        monkeypatch.setattr(existing, name, 0.05 if left_by == "abandon" else 10.0)
    leave(ranks, errors, cuda=cuda)
    assert left == dict.fromkeys(errors, left_by)
    assert {ranks[rank].is_abandoned for rank in errors} == {left_by == "abandon"}
    if left_by == "abandon":
        (late,) = {0, 1} - errors.keys()
        leave(ranks, {late: ABORTED})
        assert left == {0: "abandon", 1: "abandon"}
        with pytest.raises(RankFailedError, match="in an earlier job"), ranks[0].joined(timeout=5, cuda=cuda):
            pass


@pytest.mark.parametrize(
    ("first", "printed"),
    [
        (MISSING, ""),
        ((RuntimeError, "[gloo] Connection closed by peer"), "error: data.root: missing\n"),
        (None, "error: data.root: missing\n"),
    ],
    ids=str,
)
def test_a_rank_prints_an_error_that_the_first_one_does_not_have(two_ranks, monkeypatch, capsys, first, printed):
    def fail(*arguments):
        raise MISSING[0](*MISSING[1:])

    ranks, _ = two_ranks
    monkeypatch.setattr(existing, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(existing_ranks, "train_rank", fail)
    ranks[0].send({"settings": {"trainer": {}}})
    leave(ranks, {0: first}, cuda=False)
    ranks[0].send({"status": 3})
    assert existing_ranks._serve(ranks[1], lambda: None) == 3
    assert capsys.readouterr().err == printed


def test_a_process_that_cannot_leave_its_group_ends_at_once(monkeypatch):
    calls = []
    ranks = SimpleNamespace(leading=nullcontext, end=calls.append, is_abandoned=True)
    monkeypatch.setattr(existing_ranks, "ExistingRanks", lambda place: ranks)
    monkeypatch.setattr(os, "_exit", lambda status: calls.append(("exit", status)))
    place = ExistingRank(0, 2, 0, 2, "127.0.0.1", 1)
    assert existing_ranks.run_on_existing(place, lambda: None, lambda: 3) == 3
    assert calls == [3, ("exit", 3)]


def test_a_signal_ends_another_process_that_cannot_leave_its_group_at_once(monkeypatch):
    def serve(ranks, stop):
        raise StoppedError(15)

    ended = []
    monkeypatch.setattr(existing_ranks, "ExistingRanks", lambda place: SimpleNamespace(is_abandoned=True))
    monkeypatch.setattr(existing_ranks, "_serve", serve)
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(StoppedError):
        existing_ranks.run_on_existing(ExistingRank(1, 2, 1, 2, "127.0.0.1", 1), lambda: None, lambda: 3)
    assert ended == [128 + 15]


def test_a_task_that_does_not_join_is_one_line(train, monkeypatch):
    monkeypatch.setattr(existing, "FAREWELL_SECONDS", 0.0)
    step = {"STEP_ID": 0, "STEP_NUM_TASKS": 2, "STEP_NODELIST": "127.0.0.1", "PROCID": 0, "LOCALID": 0}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    status, _, err = train(*tiny("trainer.collective_timeout=0.2"))
    assert (status, err.count("\n")) == (1, 1), err
    assert err.startswith("error: not all ranks have joined within 0.2 s (trainer.collective_timeout)")


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1", "Connection refused"), ("no.such.host.invalid", "not known|resolution")]
)
def test_a_first_task_that_cannot_be_reached_is_an_input_error(monkeypatch, capfd, address, reason):
    monkeypatch.setattr(existing, "CONNECT_SECONDS", 0.0)
    port = free_port()
    where = f"MASTER_ADDR={address}, MASTER_PORT={port}: rank 1 of 2 cannot reach the first one there: "
    with pytest.raises(InputError, match=f"^{where}.*({reason})"):
        existing.ExistingRanks(ExistingRank(1, 2, 1, 2, address, port))
    assert capfd.readouterr().err == "", "torch says nothing"


@pytest.mark.slow
def test_another_program_at_the_port_is_an_input_error(monkeypatch):
    monkeypatch.setattr(existing, "CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        threading.Thread(target=refuse, args=(other,), daemon=True).start()
        with pytest.raises(InputError, match=f"MASTER_PORT={port}: rank 1 of 2 cannot reach"):
            existing.ExistingRanks(ExistingRank(1, 2, 1, 2, "127.0.0.1", port))
        other.shutdown(socket.SHUT_RDWR)


def refuse(server):
    with suppress(OSError):
        while True:
            with server.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
