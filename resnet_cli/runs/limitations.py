"""What a reader of a run's figures must know: how the test set was used, and what may not be reproducible."""

from collections.abc import Iterator

from resnet_cli.runs.summary import Summary, times

FEW_IMAGES = 1000  # below, the standard error of an accuracy of 90 % is more than one point


def limitations(summary: Summary) -> Iterator[str]:
    """Yield what limits the meaning of a run's figures, a sentence each."""
    yield from _status_limits(summary)
    yield from _protocol_limits(summary)
    yield from _data_limits(summary)
    yield from _repetition_limits(summary)
    yield "No licence is recorded: choose one before the weights are published."


def _status_limits(summary: Summary) -> Iterator[str]:
    status = summary["status"]
    if status == "running":
        yield "The run had not ended when this was written."
    elif status != "finished":
        yield f"The run did not finish ({status}): its weights are those of its last save."


def _protocol_limits(summary: Summary) -> Iterator[str]:
    reads = sum(summary["test_reads"].values())
    if reads > 1:
        yield (
            f"The test set was read {reads} times. What is chosen after looking at a test result biases the next "
            "one upwards."
        )
    if summary["training"]["overfit_batches"]:
        yield (
            "The run validated on its own training batches (`overfit_batches`): its validation scores and its best "
            "epoch are those of images that it was trained on."
        )
    elif summary["selection"].get("weights") == "last epoch":
        yield "No validation split was held out: the weights are those of the last epoch, and no epoch was chosen."


def _data_limits(summary: Summary) -> Iterator[str]:
    data, training = summary["data"], summary["training"]
    for split, words in (("val", "validation"), ("test", "test")):
        count = data["images"][split]
        if count and count < FEW_IMAGES:
            yield f"One of the {count:,} {words} images is {100 / count:.2g} points of the {words} accuracy."
    if data["split"]["label_noise"]:
        yield "Some of the training labels were changed deliberately (`label_noise`)."
    if training["overfit_batches"] or training["max_batches"]:
        yield "Only the first batches of each epoch were used: this run tests the set-up, not the net."


def _repetition_limits(summary: Summary) -> Iterator[str]:
    yield "One run with one seed: other seeds give other figures."
    changed = sum(bool(item.get("changes")) for item in summary["resumes"])
    if summary["resumes"]:
        changes = f", {times(changed)} with changed settings" if changed else ""
        yield f"The run was resumed {times(len(summary['resumes']))}{changes}."
    if summary["environment"]["git_dirty"]:
        yield "The code had changes that were not committed, so the commit alone does not reproduce it."
