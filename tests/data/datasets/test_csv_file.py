"""Tables of images: columns, splits, weights and groups, and bad rows named with their lines."""

import logging
import shutil
import sys
import unicodedata
import zipfile
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch

from resnet_cli.data import csv, image_folder
from resnet_cli.data.datasets import table_labels, table_rows
from resnet_cli.data.datasets.table import read_table
from resnet_cli.errors import InputError
from tests.support.images import put_images


def values(split):
    return split.images.load()[:, 0, 0, 0].tolist()


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table beside the images 0.png to 9.png, and loads it with options."""
    put_images(tmp_path, *(f"{i}.png" for i in range(10)))

    def write_and_load(text, name="labels.csv", **options):
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(content)
        return csv(file=str(tmp_path / name), cache=None, **options)

    return write_and_load


def problems_of(load, *arguments, **options):
    with pytest.raises(InputError) as caught:
        load(*arguments, **options)
    return caught.value.problems


SPLITS = "path,label,split\n3.png,b,train\n1.png,a,train\n2.png,a,test\n0.png,b,test\n5.png,b,val\n"


def test_splits_in_the_order_of_the_rows_and_classes_by_name(table):
    data = table(SPLITS)
    assert (data.name, data.class_names) == ("labels.csv", ("a", "b"))
    assert (values(data.train), data.train.labels.tolist()) == ([3, 1], [1, 0])
    assert (values(data.test), data.test.labels.tolist()) == ([2, 0], [0, 1])
    assert (values(data.val), data.val.labels.tolist()) == ([5], [1])
    assert data.train.weights is None
    assert data.train.groups is None


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Training", "valid", "TEST"), ("train", "dev", "eval"), ("train", "eval", "testing"),
     ("train", "val", "evaluation")],
)  # fmt: skip
def test_splits_have_their_usual_names(table, train, val, test):
    data = table(SPLITS.replace(",train", f",{train}").replace(",val", f", {val} ").replace(",test", f",{test}"))
    assert [len(split) for split in (data.train, data.val, data.test)] == [2, 1, 2]


def test_without_a_test_split_the_folder_and_the_table_hold_out_alike(tmp_path):
    names = [f"{label}/{i}.png" for label in "ab" for i in range(10)]
    put_images(tmp_path / "images", *names)
    rows = "".join(f"{name},{name[0]},{1 + i}\n" for i, name in enumerate(names))
    (tmp_path / "x.csv").write_text(f"image,class,weight\n{rows}")
    data = csv(file=str(tmp_path / "x.csv"), root=str(tmp_path / "images"), cache=None)
    folder = image_folder(root=str(tmp_path / "images"), cache=None)
    assert values(data.train) == values(folder.train)
    assert values(data.test) == values(folder.test)
    assert data.train.weights.tolist() == [1 + value for value in values(data.train)]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n",
        b"label;File Name\r\na;0.png\r\n\r\nb;1.png\r\na;2.png\r\nb;3.png\r\n",
        b"IMAGE\tTarget\n0.png\ta\n 1.png \t b \n\t\n2.png\ta\n3.png\tb",
        b'"path","label"\r"0.png","a"\r"1.png","b"\r"2.png","a"\r"3.png","b"\r',
        'id|img_path|class_name\n1|0.png|a\n2|1.png|b\n3|./2.png|a\n4|3.png|b\n'.encode("utf-16"),
    ],
)  # fmt: skip
def test_what_spreadsheets_write(table, text):
    data = table(text, test_fraction=0.5)
    assert data.class_names == ("a", "b")
    assert sorted(values(data.train) + values(data.test)) == [0, 1, 2, 3]


def test_odd_names_in_quotes(tmp_path, table):
    odd = ['a, b/"x".png', "ü/日本.png", "a;b.png", "sp ace.png"]
    put_images(tmp_path, *odd)
    rows = "".join(
        '"{}",{}\n'.format(name.replace('"', '""'), "äöü" if i % 2 else '"l, m"') for i, name in enumerate(odd)
    )
    data = table(f"path,label\n{rows}", test_fraction=0.5)
    assert data.class_names == ("l, m", "äöü")
    assert sorted(values(data.train) + values(data.test)) == [0, 1, 2, 3]


def test_paths_are_found_as_other_systems_spell_them(tmp_path, table):
    put_images(tmp_path, "ü/0.png", "ü/1.png", "ü/2.png", "ü/3.png")
    decomposed = unicodedata.normalize("NFD", "ü")
    rows = [f"{decomposed}/0.png,a", "ü\\1.png,a", f"{tmp_path}/ü/2.png,b", "x/../ü/3.png,b"]
    data = table("path,label\n" + "\n".join(rows), test_fraction=0.5)
    assert sorted([*data.train.images.source.names, *data.test.images.source.names]) == [f"ü/{i}.png" for i in range(4)]


def test_names_without_an_extension_are_found_if_one_file_has_them(tmp_path, table):
    rows = "".join(f"{i},{i % 2}\n" for i in range(6))
    data = table(f"image,label\n{rows}", test_fraction=0.5)
    assert sorted(values(data.train) + values(data.test)) == list(range(6))
    assert data.train.images.source.names[0].endswith(".png")
    (tmp_path / "5.jpg").write_bytes(b"")
    assert problems_of(table, f"image,label\n{rows}")[0].endswith(f"labels.csv, line 7: {tmp_path}/5 does not exist")


def test_names_without_an_extension_are_found_with_one_in_upper_case(tmp_path, table):
    put_images(tmp_path, "IMG_0.JPG", "IMG_1.PNG", "IMG_2.jpg", "IMG_3.JPG")
    rows = "".join(f"IMG_{i},{i % 2}\n" for i in range(4))
    data = table(f"image,label\n{rows}", test_fraction=0.5)
    names = sorted([*data.train.images.source.names, *data.test.images.source.names])
    assert [name.lower() for name in names] == ["img_0.jpg", "img_1.png", "img_2.jpg", "img_3.jpg"]
    (tmp_path / "IMG_1.TIF").write_bytes(b"")
    assert problems_of(table, f"image,label\n{rows}")[0].startswith(f"{tmp_path}/labels.csv, line 3: ")


def test_named_columns_groups_and_weights(table):
    text = "path,file,label,diagnosis,part,w,patient\n" + "".join(
        f"x,{i}.png,x,{'ab'[i % 2]},{'train' if i < 8 else 'test'},{i / 2},p{i // 3}\n" for i in range(10)
    )
    data = table(text, path_column="file", label_column="diagnosis", split_column="part", weight_column="w",
                 group="patient")  # fmt: skip
    assert values(data.train) == list(range(8))
    assert data.train.labels.tolist() == [0, 1] * 4
    assert data.train.weights.tolist() == [i / 2 for i in range(8)]
    assert data.train.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert data.test.groups.tolist() == [2, 3]
    assert data.train.groups.dtype == torch.int64


def test_columns_that_were_guessed_are_said(table, caplog):
    with caplog.at_level(logging.INFO):
        table("filename,label\n0.png,10\n1.png,9\n2.png,10\n3.png,9\n", test_fraction=0.5)
    assert caplog.messages[0].endswith("labels.csv: path is 'filename'")


def test_a_class_that_may_be_a_missing_label_is_said(table, tmp_path, caplog):
    table("path,label\n0.png,NaN\n1.png,b\n2.png,NaN\n3.png,b\n", test_fraction=0.5)
    said = "class 'NaN': if these images have no label, leave them out or use data.classes"
    assert caplog.messages == [f"{tmp_path}/labels.csv: column 'label': {said}"]


def test_columns_with_a_usual_name_but_other_values_are_not_used(table, tmp_path, caplog):
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{'isic' if i < 3 else 'ham'},{i or ''}\n" for i in range(6))
    data = table(f"path,label,dataset,weight\n{rows}", test_fraction=0.5)
    assert (len(data.train), len(data.test), data.train.weights) == (3, 3, None)
    assert caplog.messages[:2] == [
        f"{tmp_path}/labels.csv: column 'dataset' has no names of splits (train, val, test) and is not used",
        f"{tmp_path}/labels.csv, line 2: weight is '', not a number from 0; the column is not used for weights",
    ]
    assert (
        "line 2: dataset=isic: not the name"
        in problems_of(table, f"path,label,dataset,weight\n{rows}", split_column="dataset")[0]
    )


@pytest.mark.parametrize(("name", "cells"), [("phase", ["arterial", "venous"]), ("Partition", "012"), ("set", [""])])
def test_a_column_with_a_usual_name_that_names_no_split_is_not_used(table, tmp_path, caplog, name, cells):
    text = f"path,label,{name}\n" + "".join(f"{i}.png,{i % 2},{cells[i % len(cells)]}\n" for i in range(6))
    with caplog.at_level(logging.INFO):
        assert len(table(text, test_fraction=0.5).train) == 3
    assert caplog.messages == [
        f"{tmp_path}/labels.csv: column {name!r} has no names of splits (train, val, test) and is not used"
    ]
    assert len(problems_of(table, text, split_column=name)) == 6
    some = text.replace(f"5.png,1,{cells[5 % len(cells)]}", "5.png,1,train")
    assert len(problems_of(table, some)) == 5
    assert len(problems_of(table, text.replace(f",{name}\n", ",split\n", 1))) == 6


def test_the_column_that_names_splits_is_found_behind_others(table):
    text = "path,label,set,phase\n" + "".join(f"{i}.png,{i % 2},x,{'train' if i < 4 else 'test'}\n" for i in range(6))
    data = table(text)
    assert (len(data.train), len(data.test)) == (4, 2)


def test_classes_that_are_numbers_are_in_the_order_of_their_values(table):
    data = table("path,label\n0.png,10\n1.png,9\n2.png,10\n3.png,9\n", test_fraction=0.5)
    assert data.class_names == ("9", "10")


def test_parquet(tmp_path, table):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    content = {"path": [f"{i}.png" for i in range(4)], "label": [10, 9, 10, 9], "pixels": [b"x"] * 4}
    pq.write_table(pa.table(content), tmp_path / "x.parquet")
    data = csv(file=str(tmp_path / "x.parquet"), cache=None, test_fraction=0.5)
    assert data.class_names == ("9", "10")
    pq.write_table(pa.table({**content, "label": [10, None, 10, 9]}), tmp_path / "x.parquet")
    assert problems_of(csv, file=str(tmp_path / "x.parquet")) == (f"{tmp_path}/x.parquet, row 2: no label",)
    [line] = problems_of(csv, file=str(tmp_path / "x.parquet"), path_column="pixels")
    assert "pixels" in line
    assert "has bytes, lists or records in column 'pixels', but 'path', 'label'" in line
    pq.write_table(pa.table({"label": [1, 2], "image": [b"x"] * 2}), tmp_path / "images.parquet")
    [line] = problems_of(csv, file=str(tmp_path / "images.parquet"))
    assert line.endswith(
        "its columns of text are 'label'; choose one with data.path_column=NAME; not read: 'image' (not text; "
        "data=huggingface reads images inside Parquet files)"
    )
    pq.write_table(pa.table({"path": ["0.png"], "labels": [["a", "b"]]}), tmp_path / "lists.parquet")
    [line] = problems_of(csv, file=str(tmp_path / "lists.parquet"), labels="multi")
    assert "not read: 'labels' (not text" in line
    (tmp_path / "x.parquet").write_bytes(b"PAR1 damaged")
    [line] = problems_of(csv, file=str(tmp_path / "x.parquet"))
    assert line.startswith(f"{tmp_path}/x.parquet: cannot be read as Parquet: ")


def test_a_column_of_parquet_that_python_cannot_represent_is_not_read(tmp_path, table):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    far = pa.array([2**31 - 1] * 4, pa.int32()).cast(pa.date32())
    content = {"path": [f"{i}.png" for i in range(4)], "label": [10, 9, 10, 9], "taken": far}
    pq.write_table(pa.table(content), tmp_path / "x.parquet")
    assert csv(file=str(tmp_path / "x.parquet"), cache=None, test_fraction=0.5).class_names == ("9", "10")
    [line] = problems_of(csv, file=str(tmp_path / "x.parquet"), group="taken")
    assert "has values of type date32[day] that Python cannot represent in column 'taken', but " in line


class ArrowColumn:
    """A column of Arrow whose values are given, or an error that is raised when they are read."""

    type = "timestamp[ns]"

    def __init__(self, content):
        self.content = content

    def to_pylist(self):
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


@pytest.mark.parametrize(
    "error", [ValueError("nanoseconds"), OverflowError("date"), KeyError("zone"), ArithmeticError()]
)
def test_an_unused_column_that_cannot_be_converted_is_left_out(tmp_path, monkeypatch, error):
    columns = {"path": ArrowColumn(["0.png", None]), "taken": ArrowColumn(error)}
    content = SimpleNamespace(column_names=list(columns), column=columns.get, num_rows=2)
    arrow = ModuleType("pyarrow")
    arrow.__spec__ = ModuleSpec("pyarrow", None)
    arrow.ArrowException = type("ArrowException", (Exception,), {})
    kinds = ("is_dictionary", "is_nested", "is_binary", "is_large_binary")
    arrow.types = SimpleNamespace(**dict.fromkeys(kinds, lambda kind: False))
    arrow.parquet = ModuleType("pyarrow.parquet")
    arrow.parquet.read_table = lambda path: content
    for module in (arrow, arrow.parquet):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "x.parquet").touch()
    found = read_table(tmp_path / "x.parquet", "data.file")
    assert (found.columns, len(found)) == ({"path": ["0.png", ""]}, 2)
    with pytest.raises(InputError) as caught:
        found.require_column("data.label_column", "taken", ("label",))
    [line] = caught.value.problems
    assert line.startswith(
        f"data.label_column=taken: {tmp_path}/x.parquet has values of type timestamp[ns] that Python cannot represent "
        "in column 'taken', but 'path'; not read: 'taken'"
    )


HEADER = "path,label,split\n"
GOOD = "0.png,cat,train\n1.png,dog,train\n2.png,cat,test\n"
BAD_ROWS = [
    ("10.png,cat,train", "labels.csv, line 5: {root}/10.png does not exist; did you mean {root}/1.png?"),
    ("../x.png,cat,train", "labels.csv, line 5: ../x.png is outside data.root={root}; write the paths without .., "
     "relative to a folder above it, and set data.root to that folder"),
    ("/etc/hostname,cat,train", "labels.csv, line 5: /etc/hostname is outside data.root={root}"),
    (".,cat,train", "labels.csv, line 5: {root} is a folder"),
    ("3.png,cats,test", "labels.csv, line 5: no training image has the label 'cats' of this test image; "
     "did you mean cat?"),
    ("3.png,,test", "labels.csv, line 5: no label"),
    (" ,cat,test", "labels.csv, line 5: no path"),
    ("3.png,cat,tset", "labels.csv, line 5: split=tset: not the name of a split (train, val, test); "
     "did you mean test?"),
    ("3.png,cat", "labels.csv, line 5: 2 cells, but the first line names 3 columns"),
    ("3.png,cat,test,", "labels.csv, line 5: 4 cells, but the first line names 3 columns"),
    ("./0.png,cat,train", "labels.csv, line 5: 0.png is already listed in line 2"),
    ("0.png,dog,train", "labels.csv, line 5: 0.png is already listed in line 2 with the label 'cat', not 'dog'"),
    ("0.png,cat,test", "labels.csv, line 5: 0.png is already listed in line 2 in the train split, not test"),
    ('"3.png,cat,test', "labels.csv, line 5: unexpected end of data: a quote that is not closed, or not doubled?"),
    (b"\xfc.png,cat,test", "labels.csv, line 5: byte 0xfc is not utf-8: save it as UTF-8 text"),
    ("3.png\0,cat,train", "labels.csv, line 5: "),
    ("x" * 5000 + ",cat,train", "labels.csv, line 5: "),
]  # fmt: skip


def test_tables_whose_paths_all_begin_with_two_dots_are_one_line(table, tmp_path):
    [line] = problems_of(table, "path,label\n" + "".join(f"../images/{i}.png,{'xy'[i % 2]}\n" for i in range(9)))
    assert line == (
        f"{tmp_path}/labels.csv, line 2: ../images/0.png is outside data.root={tmp_path}; write the paths without .., "
        "relative to a folder above it, and set data.root to that folder (and in 8 more rows)"
    )


@pytest.mark.parametrize(("row", "problem"), BAD_ROWS)
def test_bad_rows_are_named_with_their_line(table, tmp_path, row, problem):
    content = (HEADER + GOOD).encode() + (row if isinstance(row, bytes) else row.encode())
    [line] = problems_of(table, content)
    expected = f"{tmp_path}/{problem.format(root=tmp_path)}"
    assert line == expected or (line.startswith(expected) and expected.endswith(": "))


def test_a_column_of_measurements_is_too_many_classes(table, tmp_path):
    rows = [f"{i}.png,{i / 8}" for i in range(8)]
    expected = f"{tmp_path}/labels.csv: column 'label': 8 different labels, such as 0.0: too many for classes"
    assert problems_of(table, "path,label\n" + "\n".join(rows)) == (expected,)
    few = "path,label\n" + "\n".join(f"{i}.png,{i % 2 / 2}" for i in range(8))
    assert table(few).class_names == ("0.0", "0.5")
    whole = "path,label\n" + "\n".join(f"{i}.png,{i % 5}.0" for i in range(8))
    assert len(table(whole).class_names) == 5


def test_empty_labels_beside_joined_ones_are_answered_by_the_key_of_several_labels(table, tmp_path):
    rows = [f"{i}.png,{'' if i % 2 else 'a|b'}" for i in range(10)] + ["10.png,", "11.png,", "12.png,"]
    problems = problems_of(table, "path,labels\n" + "\n".join(rows))
    assert problems[0] == f"{tmp_path}/labels.csv, line 3: no labels"
    assert problems[-1] == (
        f"{tmp_path}/labels.csv: data.labels=multi if 'a|b' is several labels: images may then have none"
    )
    assert len(problems_of(table, "path,labels\n0.png,a\n1.png,\n")) == 1


def test_files_that_an_archive_lacks_are_named_by_the_archive(table, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "0.png", "0.png")
    options = {"root": str(tmp_path / "photos.zip"), "path_column": "path"}
    (tmp_path / "some.csv").write_text("path,label\n0.png,a\n10.png,b\n")
    problems = problems_of(csv, file=str(tmp_path / "some.csv"), cache=str(tmp_path / "cache"), **options)
    assert problems == (
        f"{tmp_path}/some.csv, line 3: {tmp_path}/photos.zip/10.png does not exist; did you mean "
        f"{tmp_path}/photos.zip/0.png?",
    )


def test_lines_are_those_of_the_file_also_after_line_breaks_in_quotes(table):
    [line] = problems_of(table, 'path,label,note\n\n0.png,a,"two\nlines"\n1.png,,x\n2.png,b,x\n')
    assert line.endswith("labels.csv, line 5: no label")


def test_many_problems_are_counted(table):
    lines = problems_of(table, HEADER + GOOD + "nothing.png,cat,train\n" * 8)
    assert len(lines) == 6
    assert lines[-1] == "... and 3 more such problems"


@pytest.mark.parametrize(
    ("row", "options"),
    [("dog,tset", {}), ("cats,test", {}), ("dog|cats,test", {"labels": "multi"})],
)
def test_suggestions_are_computed_for_the_listed_problems_alone(table, monkeypatch, row, options):
    asked = []
    for module in (table_rows, table_labels):
        monkeypatch.setattr(module, "did_you_mean", lambda word, names: asked.append(word) or "; similar")
    rows = "".join(f"{i}.png,{row}\n" for i in range(2, 10))
    lines = problems_of(table, f"{HEADER}0.png,cat,train\n1.png,dog,train\n{rows}", **options)
    assert [line.endswith("; similar") for line in lines] == [True] * 5 + [False]
    assert len(asked) == 5


def test_a_wrong_root_is_one_line(table, tmp_path):
    (tmp_path / "empty").mkdir()
    rows = "".join(f"{i}.png,{i % 2}\n" for i in range(10))
    [line] = problems_of(table, f"path,label\n{rows}", root=str(tmp_path / "empty"))
    assert "line 2: " in line
    assert "the files of the other 9 rows are missing too; set data.root" in line
    for root, words in ((tmp_path / "none", "does not exist"), (tmp_path / "0.png", "is neither a folder nor")):
        [line] = problems_of(table, f"path,label\n{rows}", root=str(root))
        assert line.startswith(f"data.root={root} {words}")


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a,label\n0.png,x\n", {}, "no column is named path, filepath, filename ...; its first line names "
         "'a', 'label'; choose one with data.path_column=NAME"),
        ("path,lable\n0.png,x\n", {}, "'path', 'lable'; choose one with data.label_column=lable"),
        ("path,label\n0.png,x\n", {"label_column": "lable"},
         "data.label_column=lable: {file} has no such column, but 'path', 'label'; did you mean label?"),
        ("path,label,patient\n0.png,x,1\n", {"group": "pateint"}, "data.group=pateint: {file} has no such column"),
        ("path,label,label\n0.png,x,x\n", {}, "{file}, line 1: two columns are named 'label'"),
        ("path,label\n", {}, "{file}: no rows below the header"),
        ("", {}, "{file}: an empty file"),
        ("path,label\n0.png,x\n1.png,x\n", {}, "{file}: all training images are of class 'x': 2 are needed"),
        ("path,label,w\n0.png,x,1\n1.png,y,-1\n", {"weight_column": "w"},
         "{file}, line 3: w is '-1', not a number from 0"),
        ("path,label,w\n0.png,x,nan\n1.png,y,1\n", {"weight_column": "w"},
         "{file}, line 2: w is 'nan', not a number from 0"),
        ("path,label,split\n0.png,x,test\n1.png,y,val\n", {},
         "{file}: column 'split' has no row of the training split"),
        ("path,label\n0.png,x\n1.png,y\n", {}, "data.test_fraction=0.2: every class has only 1 image"),
    ],
)  # fmt: skip
def test_bad_tables(table, tmp_path, text, options, words):
    [line] = problems_of(table, text, **options)
    assert words.format(file=tmp_path / "labels.csv") in line


def test_files_that_are_no_tables(table, tmp_path):
    table(SPLITS)
    assert problems_of(csv, file=str(tmp_path / "label.csv")) == (
        f"data.file={tmp_path}/label.csv does not exist; did you mean {tmp_path}/labels.csv?",
    )
    assert problems_of(csv, file=str(tmp_path)) == (f"data.file={tmp_path} is not a file",)
    [line] = problems_of(table, SPLITS, name="labels.xlsx")
    assert line.endswith("labels.xlsx: .xlsx is not supported; save it as .csv, .tsv or .parquet")


def test_classes_that_a_split_lacks_are_said(table, caplog):
    table("path,label,split\n0.png,a,train\n1.png,b,train\n2.png,a,test\n")
    assert caplog.messages[-1].endswith("labels.csv: the test split has no image of 'b'")


@pytest.mark.parametrize("folder", ["images", "set/images"])
@pytest.mark.parametrize("prefix", ["", "images/"])
def test_an_archive_holds_the_files(tmp_path, folder, prefix):
    put_images(tmp_path / "in" / folder, *(f"{i}.png" for i in range(4)))
    archive = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{prefix}{i}.png,{i % 2}\n" for i in range(4)))
    data = csv(file=str(tmp_path / "labels.csv"), root=archive, cache=str(tmp_path / "cache"), test_fraction=0.5)
    assert sorted(values(data.train) + values(data.test)) == [0, 1, 2, 3]


def test_the_column_of_the_exact_name_is_meant(table):
    data = table("path,Label,label\n" + "".join(f"{i}.png,x{i % 2},{i % 2}\n" for i in range(6)), test_fraction=0.5)
    assert data.class_names == ("0", "1")


def test_the_line_of_a_spreadsheet_that_names_the_delimiter(table):
    text = "sep=;\npath;label\n" + "".join(f"{i}.png;{i % 2}\n" for i in range(6))
    assert len(table(text, test_fraction=0.5).train) == 3
    [line] = problems_of(table, text + "none.png;0\n")
    assert "labels.csv, line 9: " in line


def test_most_rows_say_where_the_files_of_an_archive_are(tmp_path):
    put_images(tmp_path / "in" / "images", *(f"a/{i}.png" for i in range(4)))
    archive = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")
    table = tmp_path / "labels.csv"
    options = {"file": str(table), "root": archive, "cache": str(tmp_path / "cache"), "test_fraction": 0.5}
    table.write_text("path,label\n" + "".join(f"a\\{i}.png,{i % 2}\n" for i in range(4)))
    data = csv(**options)
    assert sorted(values(data.train) + values(data.test)) == [0, 1, 2, 3]
    table.write_text("path,label\na/none.png,0\n" + "".join(f"a/{i}.png,{i % 2}\n" for i in range(4)))
    [line] = problems_of(csv, **options)
    assert line.startswith(f"{table}, line 2: ")
    assert "images/a/none.png does not exist" in line


def test_several_labels_in_a_cell(table):
    text = "path,labels\n0.png,cat;dog\n1.png,\n2.png,dog\n3.png, cat ;owl\n4.png,owl;dog;owl\n"
    data = table(text, labels="multi", test_fraction=0.4)
    assert data.class_names == ("cat", "dog", "owl")
    found = {
        value: row
        for split in (data.train, data.test)
        for value, row in zip(values(split), split.labels.tolist(), strict=True)
    }
    yes, no = True, False
    assert found == {0: [yes, yes, no], 1: [no, no, no], 2: [no, yes, no], 3: [yes, no, yes], 4: [no, yes, yes]}
    named = table(text.replace(";", " & "), labels="multi", label_delimiter="&", test_fraction=0.4)
    assert named.class_names == data.class_names


@pytest.mark.parametrize("cells", [
    ("['cat', 'dog']", "['cat']", "[]"),
    ('["cat", "dog"]', '["dog"]', "[]"),
    ("['cat' 'dog']", "['cat']", "['dog']"),
    ("{'cat', 'dog'}", "{'cat'}", ""),
    ("[1, 2]", "[2]", "[1]"),
])  # fmt: skip
def test_cells_that_are_lists_are_refused_in_new_runs_only(table, cells):
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in (*cells, cells[0])]
    rows = "".join(f"{i}.png,{cell},{'test' if i == 3 else 'train'}\n" for i, cell in enumerate(quoted))
    data = table(f"path,labels,split\n{rows}", labels="multi")
    data.validate()
    with pytest.raises(InputError, match="labels are lists, with classes such as "):
        data.validate_new()


def test_class_names_in_brackets_are_no_lists(table):
    rows = "0.png,cat (adult)|(unknown),train\n1.png,(unknown),train\n2.png,cat (adult),test\n"
    data = table(f"path,labels,split\n{rows}", labels="multi")
    data.validate_new()
    assert data.class_names == ("(unknown)", "cat (adult)")


def test_a_class_with_another_delimiter_is_reported(tmp_path, table, caplog):
    text = 'path,labels,split\n0.png,cat|dog,train\n1.png,"cat,dog",train\n2.png,dog,test\n'
    table(text, labels="multi")
    assert caplog.messages == [
        f"{tmp_path}/labels.csv: column 'labels': 'cat,dog' is one class, since other cells have '|' between class "
        "names; set data.label_delimiter to choose the delimiter"
    ]
    caplog.clear()
    table(text, labels="multi", label_delimiter="|")
    assert caplog.messages == []


def test_a_column_of_0_and_1_for_each_class(table):
    text = "path,split,night,rain,note\n0.png,train,1,0,x\n1.png,train,0,1,y\n2.png,test,1,1,x\n3.png,train,0,0,\n"
    for options in ({}, {"label_column": ["night", "rain"]}):
        data = table(text, labels="multi", **options)
        assert data.class_names == ("night", "rain")
        assert data.train.labels.tolist() == [[True, False], [False, True], [False, False]]
        assert data.test.labels.tolist() == [[True, True]]


def test_a_column_of_0_and_1_with_a_few_other_cells_is_reported(tmp_path, table, caplog):
    put_images(tmp_path, *(f"{i}.png" for i in range(40)))
    cells = {3: "2", 5: "-1"}
    rows = "".join(f"{i}.png,{i % 2},{i // 2 % 2},{cells.get(i, '1')},{i},{'' if i else 'x'}\n" for i in range(40))
    data = table(f"path,a,b,c,age,note\n{rows}", labels="multi")
    assert data.class_names == ("a", "b")
    assert caplog.messages == [
        f"{tmp_path}/labels.csv, line 5: c is '2', not 0 or 1 (and in 1 more row): the column is not used as a class; "
        "correct it, or name the classes with data.label_column=[NAME,NAME]"
    ]
    caplog.clear()
    table(f"path,a,b,c,age,note\n{rows}", labels="multi", label_column=["a", "b"])
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("path,a,b\n0.png,1,0\n1.png,2,1\n", {"label_column": ["a", "b"]}, "line 3: a is '2', not 0 or 1"),
        ("path,a,b\n0.png,1,0\n1.png,0,1\n", {"label_column": ["a", "c"]}, "data.label_column=c: "),
        ("path,a\n0.png,1\n1.png,0\n", {}, "not two columns of 0 and 1: name them with data.label_column"),
        ("path,label,split\n0.png,x|y,train\n1.png,x|yy,test\n", {}, "line 3: no training image has the label 'yy'"),
        ("path,label\n0.png,x\n1.png,x\n", {}, "only the class 'x' in its training rows: 2 are needed"),
        ("path,label\n0.png,x|y\n0.png,x\n", {}, "0.png is already listed in line 2 with the label 'x|y', not 'x'"),
    ],
)
def test_labels_that_are_no_sets_are_named(table, text, options, words):
    (problem,) = problems_of(table, text, labels="multi", **options)
    assert words in problem


def test_options_of_several_labels_need_them(table):
    (problem,) = problems_of(table, SPLITS, label_delimiter=";")
    assert problem == "data.label_delimiter: requires data.labels=multi"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (",,,\n", ": an empty file"),
        ('""\n', ": an empty file"),
        ("x" * 140_000 + "\n", ", line 1: field larger than field limit"),
        (
            b"\xef\xbb\xbfpath,label\n0.png,a\n\xfc.png,b\n",
            ", line 3: byte 0xfc is not utf-8-sig: save it as UTF-8 text",
        ),
    ],
)
def test_tables_without_a_first_line(table, tmp_path, content, problem):
    [line] = problems_of(table, content)
    assert line.startswith(f"{tmp_path}/labels.csv{problem}")


def test_an_empty_delimiter_is_refused_by_its_key(table):
    [line] = problems_of(table, "path,label\n0.png,a\n", labels="multi", label_delimiter="")
    assert line.startswith("data.label_delimiter is empty")


def test_weights_of_test_images_may_all_be_zero(table):
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{'train' if i < 6 else 'test'},{int(i < 6)}\n" for i in range(10))
    table(f"path,label,split,weight\n{rows}").validate()
