"""Folders of a sweep's jobs: what differs comes first, and jobs that are there keep their folders."""

import shutil

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from resnet_cli.hydra_app.compat import register_resolver
from resnet_cli.runs.names import job_folder_name
from resnet_cli.sweeps.folder import SweepCommand, SweepDir
from resnet_cli.sweeps.job_names import job_folder, original_names
from tests.support.runs import record_of, tiny

NET = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self, in_size, num_classes):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(in_size[0] * in_size[1] * in_size[2], num_classes))
"""
LONG = ["data.augment.crop=0", "data.augment.flip=none", "optimizer.momentum=0.9", "schedule.warmup=0"]


@pytest.fixture
def own_net(tmp_path, monkeypatch):
    (tmp_path / "linear_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    return tiny("model._target_=linear_net.Net", "trainer.epochs=1")


def folders(sweep):
    return sorted(path.name for path in sweep.iterdir() if path.is_dir())


@pytest.mark.slow
def test_swept_keys_come_first_and_the_sweep_bears_the_name_of_its_class(train, own_net, tmp_path):
    assert train("-m", *own_net, *LONG, "seed=0,1")[0] == 0
    (sweep,) = tmp_path.glob("multirun/*/*-Net")
    assert [name[:7] for name in folders(sweep)] == ["seed=0,", "seed=1,"]
    assert all("name: Net\n" in (sweep / name / "config.yaml").read_text() for name in folders(sweep))


@pytest.mark.slow
def test_jobs_in_folders_of_an_earlier_version_are_found(train, own_net, tmp_path, monkeypatch):
    """Version 0.2.0 named them by the overrides in the order in which they were typed."""
    sweep = tmp_path / "s"
    with monkeypatch.context() as patch:
        patch.setattr("resnet_cli.sweeps.preparation.name_swept_keys_first", lambda config, overrides: None)
        assert train("-m", *own_net, *LONG, "seed=0,1", "hydra.sweep.dir=s")[0] == 0
    before = folders(sweep)
    assert not any(name.startswith("seed") for name in before)
    status, out, _ = train("-m", "resume=s")
    assert (status, out.count("already finished")) == (0, 2)
    status, out, _ = train("-m", "resume=s", "trainer.epochs=2")
    assert (status, folders(sweep)) == (0, before)
    assert all(record_of(sweep / name)["epochs"] == 2 for name in before)
    shutil.rmtree(sweep / before[0])
    assert train("-m", "resume=s")[0] == 0
    assert folders(sweep) == before


@pytest.mark.slow
def test_a_job_is_found_by_a_command_that_sweeps_other_keys(train, own_net, tmp_path):
    assert train("-m", *own_net, "seed=0,1", "optimizer.lr=0.1", "hydra.sweep.dir=s")[0] == 0
    status, out, _ = train("-m", *own_net, "seed=0", "optimizer.lr=0.1,0.2", "hydra.sweep.dir=s")
    assert (status, out.count("already finished")) == (0, 1)
    assert len(SweepDir(tmp_path / "s").job_overrides()) == len(folders(tmp_path / "s")) == 3


ODD = ['"a{0..9}b"', "'it is'", "\"\\'${seed}', 100%41\"", "${seed}-x", r"a\,b\}", r'"a\\"', '"\udcff é"', "0"]


@pytest.mark.parametrize("value", ODD)
def test_any_value_passes_through_the_grammars(value, monkeypatch):
    """Hydra's own grammar ends a reference at the first `}`, that of OmegaConf a text at the first quote."""
    [override] = original_names([f"data.root={value}"])
    subdir = OverridesParser.create().parse_override(override).value()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": "nowhere"}}, "subdir": subdir})
    monkeypatch.setattr("resnet_cli.sweeps.job_names.HydraConfig.get", lambda: config.hydra)
    monkeypatch.setattr("resnet_cli.sweeps.job_names.task_overrides", lambda hydra: ["data.root=new", "seed=1"])
    register_resolver("job_folder", job_folder)
    assert config.subdir == job_folder_name([f"data.root={value}", "seed=1"])


@pytest.mark.slow
def test_a_changed_value_still_names_the_jobs(train, own_net, tmp_path):
    assert train("-m", *own_net, "name='it is {0..9}'", "seed=0", "hydra.sweep.dir=s")[0] == 0
    before = folders(tmp_path / "s")
    status, out, err = train("-m", "resume=s", "name=other")
    assert (status, out.count("already finished"), err) == (0, 1, "")
    assert folders(tmp_path / "s") == before


@pytest.mark.slow
def test_keys_that_do_not_identify_jobs_find_those_of_former_commands(train, own_net, tmp_path):
    command = ["-m", *own_net, "seed=0,1", "hydra.sweep.dir=s"]
    assert train(*command)[0] == 0
    before = folders(tmp_path / "s")
    for others in (
        ["trainer.on_oom=halve", "data.workers=0", "trainer.device=cpu"],
        ["trainer.checkpoint_every=5"],
        [],
    ):
        status, out, err = train(*command, *others)
        assert (status, out.count("already finished"), err) == (0, 2, "")
    assert folders(tmp_path / "s") == before == sorted(SweepDir(tmp_path / "s").job_overrides())


FORMER = ["model=resnet20", "data.root=photos", "seed=0"]


@pytest.mark.parametrize(
    ("former", "words", "swept", "is_known"),
    [
        ([FORMER], [*FORMER, "trainer.on_oom=halve"], "seed", True),
        ([FORMER], [*FORMER, "trainer.on_oom=halve"], "", True),
        ([FORMER], ["model=resnet20", "data.root=photos/", "seed=0"], "seed", True),
        ([FORMER], ["model=resnet20", "data.root={here}/photos", "seed=0"], "seed", True),
        ([FORMER], ["model=resnet20", "data.root=others", "seed=0"], "seed", False),
        ([[*FORMER, "data.splits=../a.csv"]], [*FORMER, "data.splits={here}/../a.csv"], "seed", True),
        ([[*FORMER, "data.splits=../a.csv"]], [*FORMER, "data.splits={here}/a.csv"], "seed", False),
        ([FORMER], [*FORMER, "init_from=runs/a"], "seed", False),
        ([FORMER], [*FORMER, "trainer.test_tta=true"], "seed", False),
        ([FORMER], [*FORMER, "trainer.epochs=9"], "seed", False),
        ([FORMER], [*FORMER, "data.workers=2"], "data.workers", False),
        ([[*FORMER, "data.workers=2"]], [*FORMER, "data.workers=2", "trainer.on_oom=halve"], "data.workers", True),
        ([[*FORMER, "data.workers=0"], [*FORMER, "data.workers=2"]], [*FORMER, "trainer.on_oom=halve"], "seed", False),
    ],
)
def test_a_job_is_known_by_what_identifies_it(tmp_path, monkeypatch, former, words, swept, is_known):
    monkeypatch.chdir(tmp_path)
    sweep = SweepDir(tmp_path / "s")
    sweep.path.mkdir()
    sweep.add_command(SweepCommand(("-m",)), {f"job {number}": own for number, own in enumerate(former)})
    config = OmegaConf.create({"sweep": {"dir": "s", "subdir": "${job_folder:''}"}})
    words = [word.replace("{here}", str(tmp_path)) for word in words]
    monkeypatch.setattr("resnet_cli.sweeps.job_names.HydraConfig.get", lambda: config)
    monkeypatch.setattr("resnet_cli.sweeps.job_names.task_overrides", lambda hydra: words)
    assert (job_folder(swept) == "job 0") is is_known
    config.sweep.subdir = "mine-${job_folder:''}"
    assert (job_folder(swept) == "job 0") is (is_known and swept != "")


@pytest.mark.parametrize("root", ["photos", "../here/photos", "{tmp}/here/photos"])
@pytest.mark.parametrize("place", ["here", "there", "elsewhere"])
def test_a_job_is_known_by_where_its_images_are_if_commands_had_several_working_folders(
    tmp_path, monkeypatch, root, place
):
    def words(root):
        return ["model=resnet20", f"data.root={root.replace('{tmp}', str(tmp_path))}", "seed=0"]

    sweep = SweepDir(tmp_path / "s")
    sweep.path.mkdir()
    for folder, typed in (("elsewhere", None), ("there", "../here/photos"), ("here", "photos")):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        if typed is not None:  # the second command has replaced the words of the first one
            sweep.add_command(SweepCommand(("-m", typed)), {"job 0": words(typed)})
    monkeypatch.chdir(tmp_path / place)
    config = OmegaConf.create({"sweep": {"dir": str(sweep.path), "subdir": "${job_folder:''}"}})
    monkeypatch.setattr("resnet_cli.sweeps.job_names.HydraConfig.get", lambda: config)
    for given, is_known in ((words(root), True), (words(f"{root}2"), False)):
        monkeypatch.setattr("resnet_cli.sweeps.job_names.task_overrides", lambda hydra, given=given: given)
        assert (job_folder("seed") == "job 0") is is_known
