"""What the process that started the ranks says of their ends."""

import signal

import pytest

from resnet_cli.distributed.launch import RankPlace, _root_error


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="signals of real time are those of Linux")
def test_a_signal_without_a_name_is_numbered(tmp_path):
    place = RankPlace(size=1, port=0, attempt=0, folder=str(tmp_path), payload={})
    number = signal.SIGRTMIN + 3
    assert str(_root_error(place, [-number], {})) == f"rank 0 was killed by signal {number}"
    assert str(_root_error(place, [-signal.SIGKILL], {})) == "rank 0 was killed by SIGKILL"


def test_an_abort_beside_a_rank_that_hangs_shows_where_it_hangs(tmp_path):
    """As by the watchdog of NCCL, which aborts the rank that waits."""
    place = RankPlace(size=2, port=0, attempt=0, folder=str(tmp_path), payload={})
    error = _root_error(place, [-signal.SIGABRT, None], {1: "File net.py, line 3"})
    assert str(error).startswith("rank 0 was killed by SIGABRT while rank 1 went on: ")
    assert error.traceback == "File net.py, line 3"
    assert str(_root_error(place, [-signal.SIGABRT, 1], {})) == "rank 0 was killed by SIGABRT"
