"""Paths on the command line are quoted once, for the shell: Hydra reads the text that the program was given."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from resnet_cli.hydra_app.overrides import hydra_arguments
from resnet_cli.hydra_app.path_values import quote_paths

NAMES = [
    "a b", "a (1)", "(1)", "photos(1)", "ü ö", "日本/写真", "~/x y", "a$b", "a,b", "a, b", "a=b", "lr=0.1,seed=0",
    "it's", 'a"b', "{a}", "2024", "1e3", "true", " a", "a ", "#1", "a;b&c", "a*b?", "50%", "a:b@c!",
    "-1", "choice(x)", '"a', "'a",
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(override, *, multirun=False):
    [quoted] = quote_paths([override], multirun=multirun)
    assert quote_paths([quoted], multirun=multirun) == [quoted]
    parsed = OverridesParser.create().parse_override(quoted)
    assert not parsed.is_sweep_override(), quoted
    return parsed.value()


@pytest.mark.parametrize(
    "key", ["data.root", "data.file", "data.cache", "init_from", "++data.labels_csv", "hydra.run.dir"]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_path_arrives_as_it_was_typed(name, key, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = name.replace("~", str(tmp_path)) if key.startswith("hydra.") else name
    assert read(f"{key}={name}") == expected


@pytest.mark.parametrize("name", ["[a]", "a\\ b", *(name for name in NAMES if "/" not in name)])
def test_a_folder_that_exists_is_one_value_also_in_a_sweep(name, tmp_path):
    (tmp_path / name).mkdir()
    assert read(f"data.root={name}", multirun=True) == name


def test_a_sweep_over_paths_stays_one(tmp_path):
    for typed in ("a,b", "a b,c (1)", "choice(a,b)", "'a b','c (1)'"):
        [quoted] = quote_paths([f"data.root={typed}"], multirun=True)
        parsed = OverridesParser.create().parse_override(quoted)
        values = [getattr(value, "text", value) for value in parsed.value().list]
        assert values in (["a", "b"], ["a b", "c (1)"])


@pytest.mark.parametrize(
    "override",
    ["data.root=${oc.env:HOME}", "data.root='a b'", 'resume="a b"', "resume=auto", "data.cache=null", "model.name=(1",
     "optimizer.lr=0.1,0.2", "data.root=a\\,b", "model=resnet20", "data.root='a','b'", "hydra/launcher=joblib"],
)  # fmt: skip
def test_what_is_no_path_or_is_quoted_already_stays(override):
    assert quote_paths([override], multirun=False) == [override]


@pytest.mark.parametrize("multirun", [False, True])
@pytest.mark.parametrize(
    "override",
    ["model.drop_path=0.1", "++model.use_cache=false", "model.num_path=2", "optimizer.square_root=True",
     "loss.root=1e-3", "model.drop_path=0.1,0.2", "model.drop_path=choice(0,0.2)", "model.drop_path=range(0,0.3,0.1)",
     "model.drop_path=interval(0,0.3)", "model.drop_path=NULL", "data.num_shards=8", "data.use_cache=true"],
)  # fmt: skip
def test_a_number_of_a_users_class_stays_one_if_its_key_is_named_like_a_path(override, multirun):
    assert quote_paths([override], multirun=multirun) == [override]


@pytest.mark.parametrize("key", ["data.val_shards", "data.image_dir", "logger.own.file", "model.weights_file"])
def test_a_number_that_is_the_name_of_a_file_is_text(key, tmp_path):
    (tmp_path / "2024").touch()
    assert read(f"{key}=2024") == "2024"


def test_several_paths_that_exist_need_a_sweep(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert quote_paths(["data.root=a,b"], multirun=False) == ["data.root=a,b"]


def test_a_reference_beside_a_space_stays_a_reference():
    assert quote_paths(["hydra.run.dir=a (1)/${name}"], multirun=False) == ['hydra.run.dir="a (1)/${name}"']


def test_any_value_that_is_a_file_and_cannot_be_parsed_is_quoted(tmp_path):
    (tmp_path / "labels (1)").mkdir()
    assert hydra_arguments(["data.labels=labels (1)"]) == ['++data.labels="labels (1)"']


@pytest.mark.parametrize("name", ["été", "日本", "a b (1)"])
def test_a_name_beyond_hydras_grammar_arrives_as_it_was_typed(name):
    assert read(f"name={name}") == name


@pytest.mark.parametrize("multirun", [False, True])
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("a-{000..099}.tar", "a-{000..099}.tar"), ("a-{x,y}.tar", "a-{x,y}.tar"), ("a-*.tar", "a-*.tar"),
        ("[a.tar,b.tar]", ["a.tar", "b.tar"]), ("[a.tar,b-[12].tar]", ["a.tar", "b-[12].tar"]),
        ("[a-{0..2}.tar,b-{x,y}.tar]", ["a-{0..2}.tar", "b-{x,y}.tar"]),
    ],
)  # fmt: skip
def test_braces_and_lists_of_shards_arrive_as_they_were_typed(typed, expected, multirun):
    assert read(f"data.shards={typed}", multirun=multirun) == expected


def test_a_sweep_over_shards_stays_one():
    [quoted] = quote_paths(["data.shards=a{0..1}.tar,b{x,y}.tar"], multirun=True)
    assert [value.text for value in OverridesParser.create().parse_override(quoted).value().list] == [
        "a{0..1}.tar",
        "b{x,y}.tar",
    ]
