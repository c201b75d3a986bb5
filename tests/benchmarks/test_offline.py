"""What travels to a machine without network: the folder, and its script with the programs replaced by an echo."""

import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest


@pytest.fixture
def offline(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    module = importlib.import_module("offline")
    wheels = []
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=lambda command, check: wheels.append(command)))
    module.wheels = wheels
    yield module
    del sys.modules["offline"]


@pytest.fixture
def machine(tmp_path):
    """Runs the script in an empty repository, with a Python that writes down its arguments."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text('#!/bin/sh\necho "$@" >> calls\necho done\n')
    (tmp_path / "bin/python3").chmod(0o755)

    def run(*arguments):
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "folder/run.sh", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    return run


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_the_script_installs_wheels_and_passes_on_the_files(offline, machine, tmp_path, capsys):
    (tmp_path / "script.py").write_text("pass")
    (tmp_path / "images.tar.gz").write_bytes(b"x")
    files = ["--published", str(tmp_path / "script.py"), "--data", str(tmp_path / "images.tar.gz")]
    assert offline.main([str(tmp_path / "folder"), *files]) == 0
    assert "hydra-core>=1.3.8,<1.5" in offline.wheels[0]
    assert "MiB" in capsys.readouterr().out
    done = machine("out", "measure")
    here = tmp_path / "folder"
    pip, program = (tmp_path / "calls").read_text().splitlines()
    assert pip.startswith("-m pip install -q --no-index --no-deps")
    expected = f"--out {tmp_path}/out/gpu.json --published {here}/script.py --data {here}/images.tar.gz"
    assert program == f"benchmarks/gpu.py {expected}"
    assert (done.returncode, (tmp_path / "out/gpu.log").read_text()) == (0, "done\n")
    for call, words in (("test", "-k not compile and not record"), ("compiled", "--add -n 4 -k compile or record")):
        assert machine("out", call).returncode == 0
        last = (tmp_path / "calls").read_text().splitlines()[-1]
        assert last == f"benchmarks/cuda_tests.py --out {tmp_path}/out/cuda_tests.json {words}"
        assert (tmp_path / f"out/{call}.log").read_text() == "done\n"
    assert machine("out", "other").returncode == 2


def test_a_file_that_is_missing_is_an_error(offline, tmp_path, capsys):
    assert offline.main([str(tmp_path / "folder"), "--data", str(tmp_path / "none.tar")]) == 2
    assert capsys.readouterr().err == f"error: no such file: {tmp_path / 'none.tar'}\n"
    assert not (tmp_path / "folder").exists()
