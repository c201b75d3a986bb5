"""resnet-info about presets, files and the machine: --list, --show, --copy, --check, --schema, --env."""

import json
import subprocess
import sys

import pytest
import torch

import resnet_cli
from resnet_cli.commands.experiment_file import format_experiment
from resnet_cli.commands.info import run
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.planning import make
from tests.support.runs import assert_same_end, tiny

TINY = ["data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3"]


class AnyArguments(torch.optim.Adam):
    """An optimizer whose signature refuses nothing."""

    def __init__(self, params, lr=0.01, **options):
        super().__init__(params, lr=lr, **options)


@pytest.fixture
def info(tmp_path, monkeypatch, capsys):
    """Run resnet-info in this process, in an empty working folder; returns (status, stdout, stderr)."""

    def info(*arguments):
        monkeypatch.chdir(tmp_path)
        status = run(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return info


def test_list(info):
    status, out, _ = info("--list", "model")
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("model=resnet20 "))
    assert line.endswith(
        "ResNet-20 (He et al. 2015, table 6): 269,722 parameters; 8.75 % error on CIFAR-10 in the paper"
    )
    assert not any(line.startswith("data=") for line in out.splitlines())
    facts = json.loads(info("--list", "--format", "json")[1])
    assert all(fact["summary"] for fact in facts)
    assert {fact["group"] for fact in facts} >= {"model", "data", "hydra/launcher", "experiment"}


def test_show_prints_the_file(info, repository):
    text = (repository / "conf/model/resnet20.yaml").read_text()
    assert info("--show", "resnet20") == (0, text, "")
    assert info("--show", "model=resnet20") == (0, text, "")


def test_copy_is_used_and_never_overwritten(info, train, tmp_path):
    status, out, _ = info("--copy", "resnet20", "--as", "thin")
    file = tmp_path / "conf/model/thin.yaml"
    assert (status, out) == (0, "conf/model/thin.yaml written; after changing it:\n  resnet-train model=thin\n")
    file.write_text(file.read_text() + "width: 4\n")
    assert info("--copy", "resnet20", "--as", "thin")[0] == 2
    assert file.read_text().endswith("width: 4\n")
    out = train("model=thin", "--cfg", "job")[1]
    assert "depth: 20" in out
    assert "width: 4" in out
    assert info("--list", "model")[1].count("conf/model/thin.yaml") == 1


def test_a_preset_is_copied_beside_a_folder_of_its_name(info, tmp_path):
    (tmp_path / "mnist").mkdir()
    assert info("--copy", "mnist")[:2] == (
        0, "conf/data/my_mnist.yaml written; after changing it:\n  resnet-train data=my_mnist\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda run: (run / "run.json").unlink(), "run/run.json: cannot be read: No such file"),
        (lambda run: (run / "plan.yaml").write_bytes(b"a: [\xff"), "plan.yaml: is damaged: "),
    ],
)
def test_a_damaged_run_is_not_copied(info, train, tmp_path, damage, problem):
    assert train(*tiny("trainer.epochs=1", "hydra.run.dir=run"))[0] == 0
    damage(tmp_path / "run")
    status, _, err = info("--copy", "./run")
    assert status == 2
    assert err.startswith(f"error: {problem}")
    assert err.count("\n") == 1


@pytest.fixture
def one_rate(monkeypatch, tmp_path):
    """Let every net be as fast, so that nothing is measured, and keep the cache of this test apart."""
    monkeypatch.setattr(make, "images_per_second", lambda *arguments, **options: 1e4)
    monkeypatch.setenv("RESNET_CLI_CACHE", str(tmp_path / "cache"))


def test_copy_of_a_plan_composes_the_same(info, train, one_rate, tmp_path):
    command = ["plan=good", *TINY, "trainer.time_budget=1 min", "model.width=8", "optimizer=adamw"]
    assert info("--copy", *command)[0] == 0
    text = (tmp_path / "conf/experiment/my_good.yaml").read_text()
    assert "batch_size: 32  # 77 training images" in text
    assert 'time_budget: "1 min"  # typed' in text
    assert "- override /optimizer: adamw  # typed" in text
    copied, planned = train("experiment=my_good", "--cfg", "job")[1], train(*command, "--cfg", "job")[1]
    assert copied == planned.replace("plan: good\n", "")
    assert info("--copy", *command)[0] == 2


def test_a_planned_network_is_described(info, one_rate):
    status, out, err = info("plan=good", *TINY, "--format", "json")
    assert status == 0
    planned = [line.split()[1] for line in err.splitlines() if line.startswith("plan    model=")]
    assert planned == [] or planned[0] == f"model={json.loads(out)['model']}"
    assert "plan    data.batch_size=32" in err


def test_copy_of_a_run_trains_the_same(info, train, tmp_path):
    settings = [
        "optimizer=adamw",
        "schedule=constant",
        "optimizer.groups={stem.*:{lr:0.1}}",
        "trainer.epochs=1",
        "seed.order=3",
    ]
    assert train(*tiny(*settings), "hydra.run.dir=one")[0] == 0
    assert train("resume=one", "trainer.epochs=2")[0] == 0
    assert info("--copy", "one")[0] == 0
    assert train("experiment=my_one", "hydra.run.dir=two")[0] == 0
    assert_same_end(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_copies_of_jobs_and_plans_of_an_experiment_that_sweeps_are_single_runs(info, train, one_rate, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    swept = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      optimizer.lr: 0.1,0.2\n"
    (folder / "swept.yaml").write_text(swept)
    assert train("-m", *tiny("experiment=swept", "trainer.epochs=1"), "hydra.sweep.dir=s")[0] == 0
    job = next(file.parent for file in tmp_path.glob("s/*/run.json") if "0.2" in file.parent.name)
    assert info("--copy", str(job), "--as", "one")[0] == 0
    assert train("experiment=one", "hydra.run.dir=two")[0] == 0
    assert_same_end(job, tmp_path / "two")
    assert info("--copy", "plan=quick", *TINY, "experiment=swept", "optimizer.lr=0.3", "--as", "planned")[0] == 0
    assert compose_settings(["experiment=planned"]).swept == ()


@pytest.mark.parametrize(
    "settings",
    [
        [f"optimizer._target_={__name__}.AnyArguments"],
        ["optimizer._target_=torch.optim.Adadelta", "optimizer.groups={stem.*:{lr:0.1}}"],
        ["optimizer=adamw", "optimizer._target_=torch.optim.NAdam", "optimizer.lr=0.02"],
        ["experiment=base", "optimizer._target_=torch.optim.RAdam"],
        ["schedule._target_=resnet_cli.schedules.constant", "loss._target_=torch.nn.CrossEntropyLoss"],
    ],
)
def test_copy_of_a_run_with_a_class_given_by_name_begins_without_the_options_arguments(
    info, settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /optimizer: adamw\n  - _self_\noptimizer: {lr: 0.003}\n"
    (tmp_path / "conf/experiment/base.yaml").write_text(text)
    resnet_cli.train([*tiny(*settings, "trainer.epochs=1"), "hydra.run.dir=one"])
    status, _, err = info("--copy", "one")
    assert (status, err) == (0, "")
    resnet_cli.train(["experiment=my_one", "hydra.run.dir=two"])
    assert_same_end(tmp_path / "one", tmp_path / "two")


def test_a_typed_class_drops_the_planned_arguments():
    plan = "defaults:\n  - override /optimizer: muon  # fast\noptimizer:\n  momentum: 0.8  # chosen\n"
    settings = compose_settings(["optimizer._target_=torch.optim.Adadelta"]).settings
    text = format_experiment(plan, ["optimizer._target_=torch.optim.Adadelta"], settings)
    assert "override /optimizer: null" in text
    assert "momentum" not in text


def test_check_accepts_what_is_right(info, tmp_path):
    for group, text in {
        "model": "defaults: [resnet20, _self_]\nwidth: 4\n",
        "experiment": "# @package _global_\nseed: 3\n",
    }.items():
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(text)
        assert info("--check", f"conf/{group}/mine.yaml") == (
            0,
            f"conf/{group}/mine.yaml: no problems ({group}=mine)\n",
            "",
        )
    (tmp_path / "sgd.yaml").write_text("_target_: torch.optim.SGD\nlr: 1\n")
    assert info("--check", "sgd.yaml")[1] == "sgd.yaml: no problems (optimizer=sgd)\n"


def test_check_of_a_whole_config(info, place):
    assert run(["--check", "run/config.yaml"]) == 0
    file = place / "run/config.yaml"
    text = file.read_text()
    file.write_text(text.replace("depth: 8", "depth: eight").replace("epochs: 2", "epochs: -2"))
    assert run(["--check", "run/config.yaml"]) == 2
    file.write_text(text.replace("resnet_cli.models.CifarResNet", "os.system"))
    assert run(["--check", "run/config.yaml"]) == 2


@pytest.mark.parametrize(
    ("name", "text", "problems"),
    [
        ("conf/model/a.yaml", "defaults: [resnet20, _self_]\nwdth: 4\ndepth: no\n",
         ["model.depth: false is not allowed", "model.wdth: unknown key; did you mean model.width?"]),
        ("conf/model/a.yaml", "a: [", ["conf/model/a.yaml:1: "]),
        ("conf/model/a.yaml", "defaults: [resnet21]\n", ["model=resnet21: no such option"]),
        ("a.yaml", "# @package _global_\nseed: -1\n", ["seed: -1 is not allowed"]),
        ("a.yaml", "- 1\n", ["a.yaml:1: not a mapping"]),
        ("a.yaml", "b: 1\n", ["a.yaml: neither a whole config nor a file of a group"]),
        ("a.yaml", "a: 2024-13-45\n", ["a.yaml: month must be in 1..12"]),
        ("a.yml", "b: 1\n", ["--check a.yml: is not a config"]),
    ],
)  # fmt: skip
def test_check_reports_every_problem(info, tmp_path, name, text, problems):
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / name).write_text(text)
    status, out, err = info("--check", name)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == len(problems)
    for problem in problems:
        assert any(line.startswith(f"error: {problem}") for line in err.splitlines()), err


def test_options_in_folders_of_a_group_have_their_bases_beside_them(info, tmp_path, monkeypatch):
    folder = tmp_path / "conf/experiment/paper"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text("# @package _global_\ntrainer: {epochs: 3}\n")
    (folder.parent / "base.yaml").write_text("# @package _global_\noptimizer: {lr: 0.3}\n")
    (folder / "run1.yaml").write_text("# @package _global_\ndefaults: [base, _self_]\nseed: 3\n")
    items = ["/experiment/base", {"override /model": "plain20"}, "_self_"]
    (folder / "run2.yaml").write_text(f"# @package _global_\ndefaults: {items}\nseed: 3\n")
    (folder.parent / "run3.yaml").write_text("# @package _global_\ndefaults: [paper/base, _self_]\n")
    assert info("--check", "conf/experiment/paper/run1.yaml")[1:] == (
        "conf/experiment/paper/run1.yaml: no problems (experiment=paper/run1)\n", "",
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert compose_settings(["experiment=paper/run1"]).in_files == {"trainer.epochs", "seed"}
    assert compose_settings(["experiment=paper/run2"]).in_files == {"optimizer.lr", "seed", "model"}
    assert compose_settings(["experiment=run3"]).in_files == {"trainer.epochs"}


SWEEP = "# @package _global_\nmodel: {}\nseed: 1\nhydra:\n  sweeper:\n    params:\n"
HERE = "conf/experiment/mine.yaml"


@pytest.mark.parametrize(
    ("params", "problems"),
    [
        ({"model.depth": "8,20", "+model": "resnet20,plain20", "++seed": "range(30)"}, []),
        ({"model.dept": "8,20"}, [f"{HERE}:7: model.dept: unknown key; did you mean model.depth?"]),
        ({"seed": "0,1", "model.depth": "8,x,y"}, [f"{HERE}:8: model.depth: {x} is not allowed" for x in "xy"]),
        ({"seed": "0,1", "model": "resnet20,resnet21"}, [f"{HERE}:8: model=resnet21: no such option"]),
        ({"optimizer.lr": "interval(-1, 0.1)", "seed": "0,1"}, [f"{HERE}:7: optimizer.lr: -1.0 is not allowed"]),
        ({"seed": "range(0)"}, [f"{HERE}:7: seed=range(0): has no value"]),
        ({"seed": "1,,2"}, [f"{HERE}:7: seed=1,,2: not key=value"]),
        ({"model": "glob(resnet*)"}, []),
    ],
)
def test_check_of_an_experiment_that_sweeps(info, tmp_path, params, problems):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / HERE).write_text(SWEEP + "".join(f"      {key}: {value}\n" for key, value in params.items()))
    status, _, err = info("--check", HERE)
    assert (status, len(err.splitlines())) == (2 if problems else 0, len(problems)), err
    for problem in problems:
        assert any(line.startswith(f"error: {problem}") for line in err.splitlines()), err
    if problems:
        assert info("--check", HERE, "seed=3", "model=resnet20", "model.depth=8", "optimizer.lr=0.1")[0] == (
            2 if "model.dept" in params else 0
        )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--show", "resnet21"], "resnet21: no such preset; did you mean resnet20?"),
        (["--list", "modl"], "modl: no such group; did you mean model?"),
        (["--show", "resnet20", "data=digits"], "--show: takes no settings; leave out data=digits"),
        (["--copy"], "--copy: give a preset"),
        (["--copy", "resnet20", "model.width=3"], "--copy resnet20: is copied unchanged"),
        (["--copy", "resnet20", "--as", "../x"], "--as ../x: a name has letters"),
        (["--copy", "plan=nice", "data=digits"], "plan=nice: is not allowed; it takes quick, good, best"),
        (["model=resnet20", "--as", "x"], "--as x: names the file of --copy"),
        (["--env", "--gradients"], "--env: does not describe a network; leave out --gradients"),
        (["--check", "missing.yaml"], "--check missing.yaml: no such file"),
    ],
)
def test_what_is_refused(info, tmp_path, arguments, problem):
    status, out, err = info(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {problem}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_environment(info):
    status, out, _ = info("--env")
    assert status == 0
    labels = {line[:17].strip() for line in out.splitlines()}
    assert labels >= {
        "versions",
        "platform",
        "cpu",
        "memory",
        "device",
        "threads",
        "data sets",
        "decoded images",
        "free disk",
    }
    facts = json.loads(info("--env", "--format", "json")[1])
    assert facts["disk"]["free"] > 0
    assert facts["versions"]["torch"]


def test_schema_is_printed_without_torch(tmp_path):
    code = "import sys\nfrom resnet_cli.commands.info import run\nrun(['--schema'])\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["required"][:2] == ["model", "optimizer"]


def test_a_cache_inside_another_is_counted_once(info, tmp_path, monkeypatch):
    monkeypatch.setenv("RESNET_CLI_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RESNET_CLI_CACHE", str(tmp_path / "data" / "decoded"))
    (tmp_path / "data" / "decoded").mkdir(parents=True)
    (tmp_path / "data" / "set").write_bytes(bytes(10))
    (tmp_path / "data" / "decoded" / "images").write_bytes(bytes(1000))
    facts = json.loads(info("--env", "--format", "json")[1])
    sizes = {cache["purpose"]: cache["bytes"] for cache in facts["caches"]}
    assert (sizes["data sets"], sizes["decoded images"]) == (10, 1000)


def test_a_run_is_not_planned_again(info, trained_run):
    status, _, err = info(str(trained_run), "plan=good")
    assert status == 2
    assert err == f"error: plan: {trained_run} keeps the plan that it was started with; leave out plan\n"


def test_copy_of_a_run_with_a_budget_has_the_budget(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ["data=digits", "model=resnet8", "trainer.time_budget=1 min"]
    settings = compose_settings(typed).settings
    settings["trainer"] |= {"epochs": 93, "steps_per_epoch": 7}  # as the budget chose
    text = format_experiment("# A run.\n", typed, settings)
    assert 'time_budget: "1 min"' in text
    assert "epochs" not in text
