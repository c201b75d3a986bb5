"""Pictures of an evaluation: sizes, and what is written in them."""

import io

import numpy as np
import pytest
from PIL import Image

from resnet_cli.plots.confusion import draw_confusion
from resnet_cli.plots.reliability import draw_reliability


@pytest.fixture
def texts(monkeypatch):
    """What is written while a picture is drawn."""
    from matplotlib.text import Text

    written = []
    draw = Text.draw
    monkeypatch.setattr(
        Text, "draw", lambda self, *args, **kw: (written.append(self.get_text()), draw(self, *args, **kw))
    )
    return written


def some_counts(classes):
    counts = 7 * np.eye(classes, dtype=np.int64)
    counts[0, 1] = 5
    return counts


def picture_of(content):
    return Image.open(io.BytesIO(content)).convert("RGB")


def test_few_classes_have_names_and_numbers(texts):
    picture = picture_of(draw_confusion(some_counts(10), [f"kind {k}" for k in range(10)], title="ten $x$ kinds"))
    assert {"ten $x$ kinds", "7", "5", "kind 9"} <= set(texts)
    assert min(picture.size) >= 600


@pytest.mark.slow
def test_a_hundred_classes_have_names_and_a_list_of_pairs(texts):
    picture = picture_of(draw_confusion(some_counts(102), [f"kind {k}" for k in range(102)], title="t"))
    assert {f"kind {k}" for k in range(102)} <= set(texts)
    assert any("kind 0  → " in text and text.strip().startswith("5") for text in texts)
    assert 1200 <= picture.size[1] <= 2000


@pytest.mark.slow
def test_a_thousand_classes_have_a_pixel_each_and_a_list_of_pairs(texts):
    picture = picture_of(draw_confusion(some_counts(1000), [f"kind {k}" for k in range(1000)], title="t"))
    assert any("0 kind 0  →  1 kind 1" in text for text in texts)
    assert len(texts) < 100
    assert 1000 <= picture.size[1] <= 2000


def test_reliability_names_the_number_of_predictions_of_each_bin(texts):
    bins = [
        {"from": 0.0, "to": 50.0, "count": 0, "confidence": float("nan"), "accuracy": float("nan")},
        {"from": 50.0, "to": 100.0, "count": 1234, "confidence": 80.0, "accuracy": 70.0},
    ]
    picture_of(draw_reliability(bins, title="猫 t", note="error 10 %", calibrated=bins))
    assert {"1,234", "error 10 %", "with its temperature"} <= set(texts)
