"""What torchrun and srun say of a process, and what is no rank."""

import pytest

from resnet_cli.distributed.environment import find_existing_rank, first_host
from resnet_cli.errors import InputError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "100", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}  # fmt: skip


def test_ranks_of_torchrun_and_srun_are_found():
    found = find_existing_rank(TORCHRUN)
    assert (found.rank, found.size, found.local_rank, found.local_size) == (3, 4, 1, 2)
    assert (found.address, found.port, found.has_store, found.attempt) == ("gpu1", 29500, True, 2)
    found = find_existing_rank(SRUN)
    assert (found.rank, found.size, found.local_rank, found.local_size) == (3, 4, 1, 2)
    assert (found.address, found.port, found.has_store) == ("gpu07", 15102, False)
    assert find_existing_rank({**SRUN, "MASTER_ADDR": "login", "MASTER_PORT": "9"}).address == "login"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "4"},  # of another program
        {**TORCHRUN, "WORLD_SIZE": "1"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},  # a job of submitit
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # the shell of a batch script
    ],
)
def test_a_process_alone_is_no_rank(environment):
    assert find_existing_rank(environment) is None


def test_a_variable_that_is_no_number_is_an_input_error():
    with pytest.raises(InputError, match="LOCAL_RANK=one: not a number"):
        find_existing_rank({**TORCHRUN, "LOCAL_RANK": "one"})


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_number_that_is_no_port_is_an_input_error(port):
    with pytest.raises(InputError, match=f"MASTER_PORT={port}: not a port number"):
        find_existing_rank({**TORCHRUN, "MASTER_PORT": port})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("a1", "a1"), ("a1,b2", "a1"), ("gpu[03-07,12],login", "gpu03"), ("n[1,3]-ib,x", "n1-ib"), ("n7,n[8-9]", "n7")],
)
def test_first_host_of_a_list_of_nodes(nodes, host):
    assert first_host(nodes) == host
