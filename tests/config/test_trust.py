"""Run folders and checkpoints that mean harm: nothing of theirs runs, nothing is told, each is one line."""

import copy
import io
import os
import pickle
import zipfile
from types import SimpleNamespace

import pytest
import torch
import yaml

from resnet_cli.config import stored, trust
from resnet_cli.errors import InputError
from resnet_cli.runs import checkpoints
from resnet_cli.session import trained, trusted_kinds
from tests.support import tiers
from tests.support.runs import tiny

SAFE = {
    "model": {"_target_": "resnet_cli.models.CifarResNet", "depth": 8},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "schedule": {"_target_": "resnet_cli.schedules.constant"},
    "loss": {"_target_": "resnet_cli.losses.CrossEntropy"},
    "data": {"_target_": "resnet_cli.data.synthetic", "augment": {"_target_": "resnet_cli.data.Augment"}},
    "trainer": {"_target_": "resnet_cli.ClassifierTrainer", "epochs": 1},
    "name": "x",
}


def changed(**keys):
    """`SAFE` with keys set, `__` for the dot."""
    settings = copy.deepcopy(SAFE)
    for key, value in keys.items():
        *path, last = key.split("__")
        node = settings
        for name in path:
            node = node[name]
        node[last] = value
    return settings


def judged(settings, named=()):
    named = dict(named)
    trust.check_names(settings, named)
    trusted_kinds.check_kinds(settings, named)


HOSTILE = {
    "model": [
        "os.system", "posix.system", "nt.system", "subprocess.Popen", "subprocess.os.system", "builtins.eval",
        "builtins.exec", "builtins.open", "pathlib.Path.open", "torch.load", "torch.hub.load", "torch.jit.load",
        "numpy.load", "pickle.load", "shutil.rmtree", "importlib.import_module", "hydra.utils.instantiate",
        "torch.nn.modules.module.torch.load", "torch.nn.modules.module.torch.hub.load", "torch.nn.functional.relu",
        "torch.nn.modules.module.warnings.warn", "torch.nn.Parameter", "torch.nn.init.normal_", "torch.nn",
        "torchvision.models._api.register_model", "torchvision.models.utils.load_state_dict_from_url",
        "torchvision.models.get_weight", "torchvision.models.feature_extraction.create_feature_extractor",
        "resnet_cli.session.build.checkpoint.torch.load", "resnet_cli.models.torch.hub.load",
        "resnet_cli.runs.checkpoints.save",
        "resnet_cli.commands.train.main.run", "resnet_cli.commands.train.main.sys.exit",
        "resnet_cli.files.write_atomically",
        "resnet_cli.data.images.safe_pickle.pickle.load", "torch.nn..Linear", "torch.nn.Line ar",
        "nowhere_to_be_found.Net", "timm.create_model", "resnet_cli.models.pretrained.native_tensors",
        "torch.optim.SGD", "", 5, None, ["os.system"],
    ],
    "optimizer": [
        "torch.nn.Linear", "torch.optim.lr_scheduler.StepLR", "torch.optim.optimizer.torch.load", "os.system",
    ],
    "schedule": ["os.system", "resnet_cli.schedules.math.floor", "resnet_cli.optimizers.Muon"],
    "loss": ["os.system", "torch.nn.Linear", "resnet_cli.losses.torch.load", "resnet_cli.losses.balanced_weights"],
    "data": ["os.system", "resnet_cli.data.read_image", "resnet_cli.data.make_loaders", "resnet_cli.data.Augment",
             "resnet_cli.data.datasets.make_digits.main", "torchvision.datasets.FakeData"],
    "trainer": ["os.system", "resnet_cli.training.trainer.logger.info", "resnet_cli.training.trainer.TrainState"],
    "data__augment": ["os.system", "resnet_cli.data.cifar10", "torch.nn.Flatten"],
}  # fmt: skip


@pytest.mark.parametrize(("key", "target"), [(key, target) for key, all_ in HOSTILE.items() for target in all_])
def test_a_stored_target_that_is_no_part_of_a_run_is_refused(key, target):
    path = key.replace("__", ".")
    with pytest.raises(InputError) as caught:
        judged(changed(**{f"{key}___target_": target}))
    (line,) = caught.value.problems
    assert line.startswith(f"{path}._target_: ")
    assert "trust=true" in line


@pytest.mark.parametrize("holder", [dict, list, lambda pairs: {"deeper": [{"still": dict(pairs)}]}])
def test_nodes_inside_nodes_are_judged(holder):
    node = {"_target_": "os.system", "command": "true"}
    inner = [node] if holder is list else holder(node)
    with pytest.raises(InputError, match=r"model\.inner.*os\.system"):
        judged(changed(model__inner=inner))


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("model", "torch.nn.Flatten"), ("model", "torch.nn.modules.linear.Linear"),
        ("model", "torchvision.models.vgg11"),
        ("model", "resnet_cli.models.torchvision_model"), ("model", "resnet_cli.models.mlp.MLP"),
        ("model", "resnet_cli.models.timm_model"),
        ("optimizer", "torch.optim.NAdam"), ("optimizer", "resnet_cli.optimizers.Muon"),
        ("schedule", "resnet_cli.schedules.one_cycle"), ("data", "resnet_cli.data.digits"),
        ("loss", "torch.nn.MultiMarginLoss"),
    ],
)  # fmt: skip
def test_the_parts_of_this_program_and_of_torch_are_accepted(key, target):
    judged(SAFE)
    judged(changed(**{f"{key}___target_": target}))


OWN = "optimizer.groups.a.b"


@pytest.mark.parametrize(
    ("group", "key"),
    [
        ({"optimizer": {"_target_": "os.system"}}, f"{OWN}.optimizer"),
        ({"optimizer": {"_target_": "resnet_cli.schedules.cosine"}}, f"{OWN}.optimizer"),
        ({"schedule": {"_target_": "resnet_cli.optimizers.build_optimizer"}}, f"{OWN}.schedule"),
        ({"schedule": {"_target_": "resnet_cli.schedules.curves.math.floor"}}, f"{OWN}.schedule"),
        ({"_target_": "torch.optim.SGD"}, OWN),
        ({"other": {"_target_": "torch.optim.SGD"}}, f"{OWN}.other"),
        ({"optimizer": {"_target_": "torch.optim.SGD", "x": {"_target_": "torch.load"}}}, f"{OWN}.optimizer.x"),
    ],
)  # fmt: skip
def test_parts_of_parameter_groups_are_judged(group, key):
    own = {"optimizer": {"_target_": "torch.optim.AdamW"}, "schedule": {"_target_": "resnet_cli.schedules.cosine"}}
    judged(changed(optimizer__groups={"a.b": own}))
    with pytest.raises(InputError) as caught:
        judged(changed(optimizer__groups={"a.b": group}))
    assert [line.split(": ")[0] for line in caught.value.problems] == [f"{key}._target_"]


HOSTILE_TRANSFORMS = [
    "os.system", "torch.nn.Flatten", "torchvision.io.write_file", "torchvision.transforms.v2.functional.hflip",
    "torchvision.transforms.v2._auto_augment.PIL.Image.open", "torchvision.datasets.FakeData",
    "resnet_cli.data.Augment",
]  # fmt: skip


@pytest.mark.parametrize("target", HOSTILE_TRANSFORMS)
@pytest.mark.parametrize("depth", [0, 1])
def test_transforms_are_of_torchvision(target, depth):
    def nodes(name):
        inner = [{"_target_": name}]
        return [{"_target_": "torchvision.transforms.v2.RandomApply", "transforms": inner}] if depth else inner

    judged(changed(data__augment__transforms=nodes("torchvision.transforms.v2.ColorJitter")))
    with pytest.raises(InputError, match=r"data\.augment\.transforms\[0\]") as caught:
        judged(changed(data__augment__transforms=nodes(target)))
    assert target in str(caught.value)


def test_every_shipped_part_is_accepted(repository):
    for part in ("model", "optimizer", "schedule", "loss", "data", "trainer"):
        for file in (repository / "conf" / part).glob("*.yaml"):
            node = yaml.safe_load(file.read_text(encoding="utf-8"))
            if "_target_" in node:
                judged({part: node})


def test_what_the_user_names_in_the_same_place_is_not_judged():
    settings = changed(model___target_="mynets.Net")
    judged(settings, {"model": "mynets.Net"})
    for named in ({"optimizer": "mynets.Net"}, {"model": "mynets.Other"}):
        with pytest.raises(InputError, match=r"mynets\.Net"):
            judged(settings, named)


def test_names_are_judged_without_importing(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="evil_module"):
        trust.check_names(changed(model___target_="evil_module.Net"), {})
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("target", ["torch.nn.modules.module.torch.load", "resnet_cli.models.torch.hub.load"])
def test_what_a_module_has_from_elsewhere_is_refused_by_name(target):
    """The check of the keys, which comes next, would import it to read its signature."""
    with pytest.raises(InputError, match="trust=true"):
        trust.check_names(changed(model___target_=target), {})


NET = """
import torch
open("canary", "a").close()
class Net(torch.nn.Module):
    def __init__(self, in_size, num_classes):
        super().__init__()
        self.head = torch.nn.Linear(in_size[0] * in_size[1] * in_size[2], num_classes)
    def forward(self, x):
        return self.head(x.flatten(1))
"""


@pytest.fixture
def planted(train, tmp_path, monkeypatch):
    """A finished run of a class of the user's own, which leaves a canary when it is imported."""
    monkeypatch.syspath_prepend(tmp_path)
    module = f"planted_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(NET)
    target = f"{module}.Net"
    arguments = [argument for argument in tiny("trainer.epochs=1") if not argument.startswith("model=")]
    assert train(*arguments, f"model._target_={target}", "hydra.run.dir=run")[0] == 0

    def forget():
        import sys

        sys.modules.pop(module, None)
        (tmp_path / "canary").unlink(missing_ok=True)

    forget()
    return SimpleNamespace(path=tmp_path / "run", target=target, canary=tmp_path / "canary", forget=forget)


def test_a_class_that_only_the_run_names_takes_the_users_word(train, planted, tmp_path):
    from resnet_cli.commands.info import run as info

    more = ["resume=run", "trainer.epochs=2"]
    status, _, err = train(*more)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith(f"error: model._target_: {planted.target} ")
    assert f"pass model._target_={planted.target} or trust=true" in err
    with pytest.raises(InputError, match="trust=true"):
        trained.open_trained("run")
    assert info(["run"]) == 2
    assert not planted.canary.exists()
    assert train("init_from=run", *tiny("trainer.epochs=1"), "hydra.run.dir=other")[0] == 2  # none of its tensors fits
    assert not planted.canary.exists()
    assert info(["run", "trust=true"]) == 0
    trained.open_trained("run", named={"model": planted.target})
    trained.open_trained("run", trust=True)
    assert train(*more, "trust=true")[0] == 0
    assert "trust" not in (planted.path / "config.yaml").read_text()
    assert train("resume=run", "trainer.epochs=3", f"model._target_={planted.target}")[0] == 0
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(f"_target_: {planted.target}\n")
    assert train("resume=run", "trainer.epochs=4", "model=mine")[0] == 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes a run folder with this config, as text or settings, and no checkpoint."""
    monkeypatch.setenv("SECRET", "hunter2")

    def make(config):
        path = tmp_path / "run"
        (path / "checkpoints").mkdir(parents=True)
        (path / "config.yaml").write_text(config if isinstance(config, str) else stored.dump(config))
        return path

    return make


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CANARY = "touch canary"
FOLDERS = {
    "callbacks": changed(hydra={"callbacks": {"x": {"_target_": "os.system", "command": CANARY}}}),
    "job_logging": changed(hydra={"job_logging": {"handlers": {"x": {"()": "os.system", "command": CANARY}}}}),
    "reads the environment": changed(name="${oc.env:SECRET}", model__depth="${oc.env:SECRET}"),
    "names the environment": changed(model___target_="${oc.env:SECRET}"),
    "a resolver for a key": changed(**{"${oc.env:SECRET}": 1}),
    "runs a command": changed(model={"_target_": "os.system", "command": CANARY}),
    "runs an alias": changed(model={"_target_": "posix.system", "command": CANARY}),
    "partial": changed(model={"_target_": "subprocess.run", "_partial_": True, "args": ["touch", "canary"]}),
    "positional": changed(model={"_target_": "os.system", "_args_": [CANARY]}),
    "inside augment": changed(data__augment={"_target_": "os.system", "command": CANARY}),
    "opens": changed(trainer={"_target_": "builtins.open", "file": "canary", "mode": "w"}),
    "its own trust": changed(trust=True, model={"_target_": "os.system", "command": CANARY}),
    "its own force": changed(resume_force=True, folder="/etc", model__depht=8),
    "alias bomb": BOMB,
    "deep": "a: " + "[" * 3000,
    "deeper": "a: " + "{a: " * 60 + "1" + "}" * 60,
    "large": "a: " + "x" * 200_000,
    "python tag": f"!!python/object/apply:os.system ['{CANARY}']",
    "large number": "name: " + "9" * 5000,
    "sexagesimal": "seed: 1" + ":1" * 30_000,
    "date": "name: 2001-99-99",
    "bytes": "name: !!binary aGVsbG8=",
    "key of a list": "? [1]\n: 2",
    "number for a key": "1: 2",
    "not text": "\x00\x01",
    "empty": "",
    "parts that are none": "model: 1\noptimizer: [1]\nname: {a: b}\n",
    "control characters": changed(model___target_="os.system\n\x1b[2J", **{"a\nb": 1}),
}


@pytest.mark.parametrize("name", tiers.mostly_slow(FOLDERS, every=4))
def test_a_hostile_run_folder_is_refused(name, folder, train, tmp_path, capsys):
    path = folder(FOLDERS[name])
    status, out, err = train("resume=run", "model.width=1")
    assert status == 2
    lines = err.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines)
    assert "hunter2" not in out + err
    assert "\x1b" not in err
    assert sorted(file.name for file in path.rglob("*")) == ["checkpoints", "config.yaml"]
    assert not (tmp_path / "canary").exists()


def test_hydras_own_files_in_a_run_folder_are_not_read(folder, train, tmp_path):
    path = folder(changed(model__depht=8))
    (path / ".hydra").mkdir()
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml", "config.pickle"):
        (path / ".hydra" / name).write_text(BOMB)
    status, _, err = train("resume=run")
    assert (status, err) == (2, err)
    assert "model.depht: unknown key" in err


class Payload:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickled(path, state):
    torch.save({"format": 1, "config": SAFE, "data": {}, "state": state, "checksum": "0"}, path)


def sealed(path, **parts):
    """A checkpoint whose checksum is right, with these parts."""
    checkpoints.save(path, {"config": SAFE, "data": {}, "state": {}, **parts})


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def doubled(times):
    value = [1]
    for _ in range(times):
        value = [value, value]
    return value


def declared(path, size):
    """A tensor of `size` float32 numbers whose storage holds one."""
    buffer = io.BytesIO()
    torch.save({"format": 1, "config": {}, "data": {}, "state": {"x": torch.zeros(7777)}, "checksum": ""}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name).replace(b"M\x61\x1e", b"\x8a\x05" + size.to_bytes(5, "little"))
            target.writestr(name, content[:4] if "/data/" in name else content)


def deflated(path):
    """A zip of zeros, a thousand times larger unpacked."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("x/data.pkl", pickle.dumps({"format": 1}, 2))
        with target.open("x/data/0", "w", force_zip64=True) as member:
            for _ in range(50):
                member.write(bytes(1 << 20))


def script(path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), path)


def distributed(path):
    path.mkdir()
    (path / ".metadata").write_bytes(pickle.dumps(Payload(os.mkdir, "canary")))


MKDIR = Payload(os.mkdir, "canary")
FILES = {
    "calls a function": lambda path: pickled(path, Payload(os.system, "mkdir canary")),
    "evaluates": lambda path: pickled(path, Payload(eval, "__import__('os').mkdir('canary')")),
    "loads bytes inside": lambda path: pickled(
        path, Payload(torch.storage._load_from_bytes, pickle.dumps(MKDIR))
    ),
    "loads a file": lambda path: pickled(path, Payload(torch.load, "x")),
    "pickle alone": lambda path: path.write_bytes(pickle.dumps(MKDIR)),
    "legacy": lambda path: torch.save({"x": MKDIR}, path, _use_new_zipfile_serialization=False),
    "distributed": distributed,
    "objects in an array": lambda path: pickled(path, __import__("numpy").array([MKDIR], dtype=object)),
    "a large tensor declared": lambda path: declared(path, 2_500_000_000),
    "compressed": deflated,
    "deep": lambda path: pickled(path, nested(200)),
    "doubled": lambda path: pickled(path, doubled(40)),
    "stretched": lambda path: pickled(path, torch.zeros(1).expand(5_000_000_000)),
    "many views": lambda path: pickled(path, [torch.zeros(1_000_000)] * 5000),
    "a long bytearray": lambda path: pickled(path, Payload(bytearray, 10_000_000_000)),
    "a meta tensor": lambda path: pickled(path, torch.zeros(3, device="meta")),
    "a sparse tensor": lambda path: pickled(path, torch.eye(3).to_sparse()),
    "a quantized tensor": lambda path: pickled(path, Payload(torch.device, "cuda:99")),
    "another magic": lambda path: path.write_bytes(b"MZ" + bytes(1000)),
    "a password file": lambda path: path.symlink_to("/etc/passwd"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": lambda path: os.mkfifo(path),
    "states that are none": lambda path: sealed(path, state={"model": {"a": 1}}),
    "weights that are none": lambda path: sealed(path, state={"model": [1]}),
    "no data": lambda path: sealed(path, data={"in_size": [3, 1 << 20, 1 << 20], "class_names": ["a"]}),
    "names that are none": lambda path: sealed(path, data={"in_size": [3, 8, 8], "class_names": [1]}),
    "config of tensors": lambda path: sealed(path, config={"model": torch.zeros(3)}),
    "config that calls": lambda path: sealed(path, config={"model": {"_target_": "os.mkdir", "path": "canary"}}),
    "config of another model": lambda path: sealed(path, config=changed(model__depht=8)),
}  # fmt: skip


@pytest.mark.parametrize("name", tiers.mostly_slow(FILES, every=4))
@pytest.mark.filterwarnings("ignore")
def test_a_hostile_checkpoint_is_refused(name, tmp_path, monkeypatch, folder, train):
    path = folder(SAFE) / "checkpoints" / "last.pt"
    monkeypatch.chdir(tmp_path)
    FILES[name](path)
    (tmp_path / "canary").rmdir() if (tmp_path / "canary").exists() else None  # made while it was written
    with pytest.raises(InputError) as caught:
        trained.open_trained("run")
    assert "last.pt" in str(caught.value) or "trust=true" in str(caught.value) or "model.dep" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "root:" not in str(caught.value)
    status, _, err = train(*tiny(), "init_from=run", "hydra.run.dir=other")
    assert status == 2
    assert err.startswith("error: ")
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "other").exists()


def test_a_torchscript_file_is_refused(tmp_path):
    with pytest.warns():
        script(tmp_path / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt"):
        checkpoints.load(tmp_path / "last.pt")


RESUMES = {
    "model=resnet20": "model.depth: 8 -> 20",
    "model.width=2": "model.width: 1 -> 2",
    "optimizer=adamw": "optimizer._target_: torch.optim.SGD -> torch.optim.AdamW",
    "optimizer.lr=0.3": "optimizer.lr: 0.1 -> 0.3",
    "seed=7": "seed: 0 -> 7",
    "data.batch_size=16": "data.batch_size: 32 -> 16",
    "data.classes=4": "data.classes: 3 -> 4",
    "data=digits": "data._target_: resnet_cli.data.synthetic -> resnet_cli.data.digits",
    "trainer.epochs=1": "trainer.epochs: 2 -> 1",
    "schedule.warmup=1": "schedule.warmup: ",
    "schedule=constant": "schedule._target_: ",
}


def test_changes_on_resume_are_refused_with_a_line_each(train, tmp_path):
    assert train(*tiny("hydra.run.dir=d", "trainer.max_batches=1"))[0] == 0
    record = (tmp_path / "d" / "run.json").read_bytes()
    for change, line in RESUMES.items():
        status, _, err = train("resume=d", change)
        assert status == 2
        assert line in err
        assert all(given.startswith("error: ") for given in err.splitlines())
        assert (tmp_path / "d" / "run.json").read_bytes() == record
    status, _, err = train("resume=d", "seed=7", "data.batch_size=16")
    assert "seed: 0 -> 7" in err
    assert "data.batch_size: 32 -> 16" in err
