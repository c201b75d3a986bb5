"""resnet-predict: images as users name them, its formats, unreadable images, rejection."""

import csv
import errno
import io
import json
import logging
import os
import shutil
import signal
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from resnet_cli import load_run
from resnet_cli.commands import export, predict


@pytest.fixture
def predicted(place, capsys):
    def run(*arguments):
        status = predict.run(["run", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def names_of(text):
    return [json.loads(line)["image"] for line in text.splitlines()]


def test_table_names_images_and_their_classes(predicted, place):
    status, out, err = predicted("photos/circle/000.png", "photos/square/001.png", "--top", "9")
    assert (status, err) == (0, "")
    probabilities = load_run(place / "run")(place / "photos/circle/000.png")[0]
    best = probabilities.argmax().item()
    first, second = out.splitlines()
    name = ("circle", "square", "stripes")[best]
    assert first.startswith(f"photos/circle/000.png  {name} {100 * probabilities[best]:.1f} %")
    assert second.startswith("photos/square/001.png  ")
    assert first.count(" %") == 3


def test_csv_and_json_lines_have_the_same_numbers(predicted, place):
    status, out, _ = predicted("photos", "--format", "csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (status, len(rows)) == (0, 60)
    assert list(rows[0]) == ["image", "class", "probability", "class_2", "probability_2"]
    _, out, _ = predicted("photos", "--format", "jsonl", "--top", "2")
    objects = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == [found["image"] for found in objects]
    assert [float(row["probability_2"]) for row in rows] == [found["top"][1]["probability"] for found in objects]
    expected = load_run(place / "run")([row["image"] for row in rows]).amax(1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected.tolist(), abs=1e-6)


def test_folders_patterns_archives_and_standard_input_name_the_same_images(predicted, place, monkeypatch):
    expected = [f"photos/square/{index:03d}.png" for index in range(20)]
    with zipfile.ZipFile("some.zip", "w") as archive:
        for name in expected:
            archive.write(name)
        archive.writestr("photos/readme.txt", "no image")
    with tarfile.open("some.tar.gz", "w:gz") as archive:
        archive.add("photos/square")
    forms = {
        "photos/square": expected,
        "photos/sq*/*.png": expected,
        "photos/**/square/*.png": expected,
        "some.zip": [f"some.zip/{name}" for name in expected],
        "some.tar.gz": [f"some.tar.gz/{name}" for name in expected],
    }
    for form, names in forms.items():
        status, out, err = predicted(form, "--format", "jsonl")
        assert (status, err, sorted(names_of(out))) == (0, "", names), form
    monkeypatch.setattr("sys.stdin", io.StringIO("photos/square/003.png\n\nsome.zip\r\n"))
    status, out, _ = predicted("-", "--format", "jsonl")
    assert names_of(out) == ["photos/square/003.png", *forms["some.zip"]]


def test_standard_input_takes_any_name_and_skips_what_cannot_be_read(predicted, place, monkeypatch):
    shutil.copy("photos/square/001.png", b"caf\xe9.png")
    names = [b"photos/square/000.png", b"x" * 300 + b".png", b"caf\xe9.png\0photos/square/002.png\0", b"\xff.png"]
    stdin = io.TextIOWrapper(io.BytesIO(b"\n".join(names)), encoding="utf-8", errors="strict")
    monkeypatch.setattr("sys.stdin", stdin)
    status, out, err = predicted("-", "-", "--format", "jsonl")
    assert (status, [os.fsencode(name) for name in names_of(out)]) == (2, [names[0], *names[2].split(b"\0")[:2]])
    assert len(err.splitlines()) == 2
    assert err.startswith("error: " + "x" * 300 + ".png: File name too long\nerror: ")
    assert err.endswith(".png: no such file or folder\n")
    monkeypatch.setattr("sys.stdin", None)
    status, out, err = predicted("-", "photos", "--format", "jsonl")
    assert (status, len(names_of(out))) == (2, 60)
    assert err == "error: -: standard input is closed, so no names can be read\n"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "zip"])
def test_an_image_on_standard_input_is_one_line(predicted, place, monkeypatch, kind):
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w") as archive:
            archive.write("photos/square/001.png")
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(content, kind)
    content.seek(0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(content, encoding="utf-8"))
    status, out, err = predicted("-", "-", "--format", "jsonl")
    assert (status, out) == (2, "")
    problem = "standard input has the data of an image or archive, not names of images; give the file itself"
    assert err == f"error: -: {problem}\n"


@pytest.mark.parametrize("name", ["GIF89a.png", "RIFF.png", "II.png", "PK.png"])
def test_names_that_begin_as_images_do_are_names(predicted, place, monkeypatch, name):
    shutil.copy("photos/square/001.png", name)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{name}\n"))
    status, out, err = predicted("-", "--format", "jsonl")
    assert (status, names_of(out), err) == (0, [name], "")


def test_a_pattern_names_each_image_once_and_opens_archives(predicted, place):
    images = [f"photos/{kind}/{index:03d}.png" for kind in ("circle", "square", "stripes") for index in range(20)]
    with zipfile.ZipFile("photos/circle.zip", "w") as archive:
        archive.write("photos/circle/000.png", "a.png")
    assert predicted("photos/cir*", "--format", "csv", "--out", "o.csv")[1] == "o.csv: 21 images\n"
    (place / "photos/square/back").symlink_to("..", target_is_directory=True)
    (place / "photos/circle/same.png").symlink_to("000.png")  # a link to a file is a name that was asked for
    expected = sorted([*images, "photos/circle.zip/a.png", "photos/circle/same.png"])
    for pattern in ("photos/**", "photos//**", "./photos/**"):
        status, out, err = predicted(pattern, "--format", "jsonl")
        assert (status, err, sorted(names_of(out))) == (0, "", expected), pattern
    status, out, err = predicted("photos/square/**/000.png", "--format", "jsonl")
    assert names_of(out) == [
        "photos/square/000.png", "photos/square/back/circle/000.png", "photos/square/back/stripes/000.png"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["no.zip", "n*.zip", "no.tar"])
def test_an_archive_without_images_is_refused_as_a_folder_is(predicted, place, name):
    with zipfile.ZipFile("no.zip", "w") as archive:
        archive.writestr("readme.txt", "no image")
    with tarfile.open("no.tar", "w") as archive:
        archive.add("run/config.yaml")
    status, out, err = predicted(name)
    file = name.replace("n*", "no")
    assert (status, out) == (2, "")
    assert err == f"error: {file}: no image files in this archive, by their names (.jpg, .png ...)\n"


def test_a_damaged_archive_is_reported_and_the_rest_done(predicted, place):
    with tarfile.open("whole.tar.gz", "w:gz") as archive:
        archive.add("photos/square")
    content = (place / "whole.tar.gz").read_bytes()
    (place / "cut.tar.gz").write_bytes(content[: len(content) // 2])
    (place / "no.zip").write_bytes(b"no archive")
    arguments = ["no.zip", "cut.tar.gz", "photos/circle", "--format", "jsonl", "--batch-size", "7"]
    status, out, err = predicted(*arguments)
    first, second = err.splitlines()
    assert status == 2
    assert first.startswith("error: no.zip: damaged or not an archive: ")
    assert second.startswith("error: cut.tar.gz: damaged or not an archive: ")
    assert sum(name.startswith("photos/circle/") for name in names_of(out)) == 20
    assert predicted(*arguments, "--strict") == (2, "", f"{first}\n")


def test_a_link_back_to_its_folder_is_not_followed_forever(predicted, place):
    (place / "photos/circle/back").symlink_to(place / "photos", target_is_directory=True)
    _, out, _ = predicted("photos/circle", "--format", "jsonl")
    assert len(names_of(out)) == len({name.replace("back/", "") for name in names_of(out)}) == 60


def test_an_unreadable_image_is_reported_and_the_rest_done(predicted, place):
    (place / "photos/bad.png").write_bytes(b"no image")
    status, out, err = predicted("photos", "missing.png", "--format", "jsonl", "--batch-size", "7")
    assert status == 2
    assert len(names_of(out)) == 60
    assert err.splitlines() == [
        "error: missing.png: no such file or folder",
        "error: photos/bad.png: not an image in a format that Pillow reads",
    ]
    status, out, err = predicted("photos", "--strict", "--out", "o.csv")
    assert (status, out) == (2, "")
    assert err == "error: photos/bad.png: not an image in a format that Pillow reads\n"
    assert not (place / "o.csv").exists()


def test_values_without_a_range_are_explained_without_a_setting_of_training(predicted, place):
    Image.new("F", (12, 10)).save("float.tif")
    Image.new("I", (12, 10), 70_000).save("long.tif")
    status, out, err = predicted("float.tif", "long.tif")
    why = "values, but the run was trained without data.range and takes only unsigned values of 8 or 16 bits"
    assert (status, out) == (2, "")
    assert err.splitlines() == [f"error: float.tif: floating-point {why}", f"error: long.tif: 32-bit {why}"]


def test_out_has_all_lines_and_chooses_the_format(predicted, place):
    assert predicted("photos", "--out", "classes.csv") == (0, "classes.csv: 60 images\n", "")
    assert len((place / "classes.csv").read_text().splitlines()) == 61


def test_out_says_how_many_images_are_not_in_the_file(predicted, place):
    (place / "photos/IMG_1.HEIC").write_bytes(b"no format of Pillow")
    status, out, err = predicted("photos", "--out", "classes.csv")
    assert (status, out) == (2, "classes.csv: 60 images; 1 could not be read and is not in it\n")
    assert err == (
        "error: photos/IMG_1.HEIC: not an image in a format that Pillow reads: convert phone photos to JPEG first\n"
    )


def test_images_before_the_run_are_answered_by_the_right_order(place, capsys):
    assert predict.run(["photos", "run"]) == 2
    assert capsys.readouterr().err == (
        "error: photos: not a run folder; the run comes first: resnet-predict run IMAGES\n"
    )


def test_an_image_before_the_run_is_answered_by_the_right_order(place, capsys):
    assert predict.run(["photos/circle/000.png", "run"]) == 2
    assert capsys.readouterr().err == (
        "error: photos/circle/000.png: not a run folder; the run comes first: resnet-predict run IMAGES\n"
    )


def test_a_checkpoint_is_a_run_beside_a_folder_of_images_that_is_one(place, capsys):
    shutil.copytree("photos/circle", "run/photos")
    assert predict.run(["run/checkpoints/best.pt", "run", "--out", "o.csv"]) == 0


@pytest.mark.parametrize("command", [predict, export])
def test_a_sweep_is_called_one(place, capsys, command):
    (place / "sweep").mkdir()
    (place / "sweep/sweep.json").write_text("{}")
    assert command.run(["sweep", *(["photos"] if command is predict else [])]) == 2
    assert capsys.readouterr().err == (
        "error: sweep: a sweep; give one of its run folders, or compare them: resnet-report sweep\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_the_lines_done_so_far(predicted, place, monkeypatch, name):
    from resnet_cli.inference.classifier import Classifier

    forward, calls, number = Classifier.forward, [], getattr(signal, name)

    def interrupted(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", interrupted)
    status, _, err = predicted("photos", "--batch-size", "10", "--out", "o.jsonl")
    assert (status, err) == (128 + number, "")
    assert len(names_of((place / "o.jsonl").read_text())) == 20


@pytest.mark.parametrize(("format_name", "read"), [("table", 1), ("jsonl", 1), ("csv", 1), ("csv", 0)])
def test_nothing_is_classified_for_a_reader_that_has_gone(predicted, place, monkeypatch, format_name, read):
    """The reader takes `read` batches; a header is a text of its own."""
    from resnet_cli.inference.classifier import Classifier

    forward, calls, ends = Classifier.forward, [], os.pipe()
    if not read:
        os.close(ends[0])

    def counted(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            os.close(ends[0])
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", counted)
    with os.fdopen(ends[1], "w", encoding="utf-8") as closing:
        monkeypatch.setattr("sys.stdout", closing)
        assert predict.run(["run", "photos", "--batch-size", "10", "--format", format_name]) == 0
    assert len(calls) == (2 if read else 0)


def test_reject_says_none_of_these_at_the_rate_of_the_validation_images(predicted, place):
    status, out, _ = predicted("photos", "--reject", "25%", "--format", "csv")
    assert status == 0
    kept = json.loads((place / "run/run.json").read_text())["reject"]
    assert (kept["method"], kept["rate"], kept["samples"]) == ("energy", 0.25, 12)
    rows = {row["image"]: row for row in csv.DictReader(io.StringIO(out))}
    validated = json.loads((place / "run/splits.json").read_text())["val"]
    names = [f"photos/{kind}/{name}" for kind, names in validated.items() for name in names]
    rejected = [rows[name]["rejected"] for name in names]
    assert sorted(rejected) == ["false"] * 9 + ["true"] * 3
    shutil.move(place / "photos", place / "elsewhere")  # the threshold is not chosen again
    status, out, _ = predicted("elsewhere", "--reject", "0.25")
    assert status == 0
    assert out.count("none of these (") == sum(row["rejected"] == "true" for row in rows.values())


def test_the_probability_can_be_what_rejects(predicted, place):
    assert predicted("photos", "--reject", "5%", "--reject-by", "probability", "--format", "csv")[0] == 0
    assert json.loads((place / "run/run.json").read_text())["reject"]["method"] == "probability"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "nothing.png: no such file or folder"),
        (["x" * 300], f"{'x' * 300}: File name too long"),
        (["*.bmp"], "*.bmp: no file has a name of this pattern"),
        (["run/checkpoints"], "run/checkpoints: no image files in this folder, by their names (.jpg, .png ...)"),
        (["photos", "--top", "0"], "argument --top: 0 is not a whole number from 1 to 1000000"),
        (
            ["photos", "--reject", "5"],
            "argument --reject: 5 is not a share such as 5% or 0.05",
        ),
        (["photos", "--reject-by", "energy"], "--reject-by energy: needs --reject RATE"),
        (["photos", "--calibrated"], "--calibrated: the run has no temperature; resnet-eval RUN --calibrate fits one"),
        (["photos", "--out", "o.xlsx"], "--out=o.xlsx: name it *.csv, *.jsonl, *.txt, or set --format"),
        (["photos", "--out", "o.csv", "--format", "jsonl"], "--format=jsonl: o.csv is a file of format csv"),
        (["photos", "--device", "cuda:9"], None),
        (["photos", "--checkpoint", "worst"], "--checkpoint worst: no such file; it takes best, last or a checkpoint"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(predicted, place, arguments, message):
    before = sorted(place.iterdir())
    status, out, err = predicted(*arguments)
    (line,) = err.splitlines()
    assert (status, out) == (2, "")
    assert message is None or line.removesuffix(" (--help lists the options)") == f"error: {message}"
    assert sorted(place.iterdir()) == before


def test_a_folder_that_is_no_run_is_refused(place, capsys):
    assert predict.run(["photos", "photos"]) == 2
    assert capsys.readouterr().err == "error: photos: not a run folder (it has no config.yaml)\n"


def test_pictures_of_a_second_run_are_not_classified(predicted, place):
    status, out, err = predicted("run", "photos")
    line = "error: run: a run folder, which has no images to classify; resnet-predict takes one run\n"
    assert (status, out, err) == (2, "", line)
    (place / "photos/config.yaml").write_text("")
    assert predicted("photos/circle", "photos")[0] == 0


def test_warnings_about_a_run_reach_the_terminal_without_its_control_characters(predicted, place, monkeypatch):
    file = place / "run/run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "status": "interrupted", "best": {"epoch": "1\x1b[31m\x07"}}))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest has some, a command has none
    status, _, err = predicted("photos/circle/000.png")
    line = r"run: the run is not finished (interrupted): the best checkpoint so far, its epoch 1\x1b[31m\x07"
    assert (status, err) == (0, f"{line}\n")


def test_a_temperature_of_another_checkpoint_is_refused(predicted, place):
    record = json.loads((place / "run/run.json").read_text())
    (place / "run/run.json").write_text(json.dumps({**record, "temperature": {"value": 2.5, "epoch": 77}}))
    status, _, err = predicted("photos", "--calibrated")
    assert status == 2
    assert "--calibrated: the run has no temperature for epoch " in err


def test_a_missing_run_and_a_missing_image_are_both_told(place, capsys):
    assert predict.run(["nowhere", "nothing.png"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: nowhere: no such run folder",
        "error: nothing.png: no such file or folder",
    ]


def test_a_threshold_is_chosen_anew_for_another_temperature(predicted, place):
    arguments = ("photos", "--reject", "25%", "--reject-by", "probability", "--format", "csv")
    assert predicted(*arguments)[0] == 0
    file = place / "run/run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "temperature": {"value": 2.5, "epoch": record["best"]["epoch"]}}))
    assert predicted(*arguments, "--calibrated")[0] == 0
    before, after = record["reject"], json.loads(file.read_text())["reject"]
    assert (before["temperature"], after["temperature"]) == (1.0, 2.5)
    assert after["threshold"] < before["threshold"]


@pytest.mark.parametrize("name", ["photos", "phot*", "-"])
def test_a_folder_that_cannot_be_read_is_reported_and_the_others_are_classified(place, monkeypatch, capsys, name):
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("circle"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", scandir)
    monkeypatch.setattr("sys.stdin", io.StringIO("photos\n"))
    assert predict.run(["run", name, "--format", "jsonl"]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 40
    assert "error: photos/circle: cannot be read: Permission denied" in err.splitlines()
