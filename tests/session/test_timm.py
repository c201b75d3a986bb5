"""Runs of timm's nets: from the hub's cache without a network, resumed, evaluated and exported without it."""

import pytest
import torch
import yaml

from resnet_cli.session.trained import open_trained
from tests.support.images import write_class_folders
from tests.support.runs import assert_same_end, record_of

timm = pytest.importorskip("timm")

NET = ["model=timm", "model.name=test_resnet", "model.pretrained=true"]
PHOTOS = ["data=image_folder", "data.root=photos", "data.image_size=32", "data.cache=null", "data.batch_size=16"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where a file is put by hand for timm's test_resnet: the cache of the hub is empty, and a network is refused."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    write_class_folders(tmp_path / "photos", classes=("circle", "square", "stripes"), count=12, size=(40, 40))
    return tmp_path / "hub/models--timm--test_resnet.r160_in1k/snapshots/main/model.safetensors"


@pytest.fixture
def published(place):
    from safetensors.torch import save_file

    torch.manual_seed(5)
    weights = timm.create_model("test_resnet").state_dict()
    place.parent.mkdir(parents=True)
    save_file(weights, place)
    return weights


def test_a_run_starts_from_the_cache_of_the_hub(train, place, published, tmp_path):
    arguments = [*NET, *PHOTOS, "optimizer.lr=0.01", "schedule=constant", "schedule.warmup=0"]
    status, out, err = train(*arguments, "trainer.epochs=2", "hydra.run.dir=whole")
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("weights ")]
    assert line.startswith("weights test_resnet.r160_in1k of timm: ")
    assert "new: fc.weight|bias (1000 classes in the file)" in line
    assert "other than theirs: data.image_size=32 not 160" in line
    config = yaml.safe_load((tmp_path / "whole/config.yaml").read_text())
    assert config["model"]["name"] == "test_resnet.r160_in1k"
    assert config["data"]["mean"] == list(timm.get_pretrained_cfg("test_resnet").mean)
    assert record_of(tmp_path / "whole")["weights"]["parameters"] == 372_688
    assert "base_model: timm/test_resnet.r160_in1k\n" in (tmp_path / "whole/card.md").read_text()
    assert train(*arguments, "trainer.epochs=1", "hydra.run.dir=parts")[0] == 0
    place.unlink()
    assert train("resume=parts", "trainer.epochs=2")[0] == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert open_trained("whole").model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_the_positions_of_a_transformer_are_interpolated_to_the_size_of_the_images(train, place, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "vit.safetensors"
    weights = timm.create_model("test_vit").state_dict()  # for images of 160 pixels
    save_file(weights, file)
    vit = ["model=timm", "model.name=test_vit", "init_from=vit.safetensors", *PHOTOS[:2], "data.image_size=64"]
    status, out, err = train(*vit, "data.cache=null", "trainer.epochs=1", "optimizer.lr=1e-30", "hydra.run.dir=a")
    assert status == 0, err
    assert "adapted: pos_embed ([1, 101, 64] -> [1, 17, 64] interpolated)" in out
    found = open_trained("a").model.state_dict()
    torch.testing.assert_close(found["blocks.0.attn.qkv.weight"], weights["blocks.0.attn.qkv.weight"])
    expected = timm.layers.resample_abs_pos_embed(weights["pos_embed"], [4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(found["pos_embed"], expected)


@pytest.mark.slow
def test_companions_take_such_a_run(train, published, tmp_path, capsys):
    from resnet_cli.commands import eval as evaluation
    from resnet_cli.commands import info, predict

    assert train(*NET, *PHOTOS, "trainer.epochs=1", "hydra.run.dir=a")[0] == 0
    assert info.run(["a"]) == 0
    assert info.run(["model=timm", "model.name=test_resnet", "data=synthetic"]) == 0
    assert evaluation.run(["a", "--split", "val"]) == 0
    image = next((tmp_path / "photos").rglob("*.png"), None) or next((tmp_path / "photos").rglob("*.jpg"))
    capsys.readouterr()
    assert predict.run(["a", str(image)]) == 0
    assert str(image) in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_timm_is_exported(train, published):
    pytest.importorskip("onnxscript")
    from resnet_cli.commands import export

    assert train(*NET, *PHOTOS, "data.interpolation=bicubic", "trainer.epochs=1", "hydra.run.dir=a")[0] == 0
    assert export.run(["a", "--format", "pt2"]) == 0


def test_missing_weights_are_one_line_that_says_where_to_put_them(train, place, tmp_path):
    status, _, err = train(*NET, *PHOTOS, "hydra.run.dir=a")
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("error: model.name=test_resnet.r160_in1k: could not fetch timm/test_resnet.r160_in1k from")
    assert line.endswith(f"put its model.safetensors at {place} yourself")
    assert ". )" not in line
    assert not (tmp_path / "a").exists()


def test_timm_reads_no_file_that_a_config_names(train, tmp_path):
    options = "model.options={checkpoint_path: /etc/passwd}"
    status, _, err = train("model=timm", "model.name=test_resnet", options, "data=digits", "hydra.run.dir=a")
    assert status == 2
    assert err == "error: model.options.checkpoint_path: cannot be set\n"
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_new_runs_see_whole_patches_and_runs_of_earlier_versions_resume(train, tmp_path, monkeypatch):
    write_class_folders(tmp_path / "photos", classes=("circle", "square"), count=8, size=(40, 40))
    photos = [option.replace("image_size=32", "image_size=33") for option in PHOTOS]
    arguments = ["model=timm", "model.name=vit_tiny_patch16_224", *photos, "hydra.run.dir=run"]
    status, _, err = train(*arguments, "trainer.epochs=1")
    assert status == 2
    assert err.startswith(
        "error: data.image_size=33: vit_tiny_patch16_224 sees only whole patches: use a multiple of 16, such as 32"
    )
    with monkeypatch.context() as earlier:
        earlier.setattr("resnet_cli.session.prepare.require_whole_patches", lambda *_: None)
        status, _, err = train(*arguments, "trainer.epochs=1")
    assert status == 0, err
    status, _, err = train("resume=run", "trainer.epochs=2")
    assert status == 0, err
