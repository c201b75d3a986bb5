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
