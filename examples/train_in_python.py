"""Training from a Python program, without a config and without a notebook.

    python examples/train_in_python.py --epochs 5

`ClassifierTrainer` trains any `torch.nn.Module` with any `torch.optim` optimizer on any iterable of (images, labels)
that can be gone through again: the loaders of this package or a `torch.utils.data.DataLoader`.
"""

import argparse
from collections.abc import Sequence

import torch

from resnet_cli import ClassifierTrainer
from resnet_cli.data import Augment, digits, make_loaders
from resnet_cli.models import ArgMaxClassifier, CifarResNet
from resnet_cli.schedules import one_cycle

SEED = 0


def main(arguments: Sequence[str] | None = None) -> float:
    """Train a small residual network on handwritten digits and return its test accuracy in percent."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    epochs = parser.parse_args(arguments).epochs

    loaders = make_loaders(digits(), device="cpu", seed=SEED, batch_size=64, augment=Augment(crop=1))
    torch.manual_seed(SEED)  # the initial weights
    model = CifarResNet(loaders.in_size, len(loaders.class_names), depth=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = one_cycle(total_steps=epochs * len(loaders.train), steps_per_epoch=len(loaders.train))
    trainer = ClassifierTrainer(model, torch.nn.CrossEntropyLoss(), optimizer, schedule=schedule, seed=SEED)

    result = trainer.fit(loaders.train, loaders.val, num_epochs=epochs, verbose=False)
    for epoch, (loss, accuracy) in enumerate(zip(result.train_loss, result.test_acc, strict=True), start=1):
        print(f"epoch {epoch}: training loss {loss:.3f}, validation accuracy {accuracy:.1f} %")

    scores = trainer.evaluate(loaders.test)  # the test set is read once, at the end
    print(f"test accuracy {scores.accuracy:.2f} % on {scores.count} images")

    images_BCHW, labels_B = next(iter(loaders.test))
    classifier = ArgMaxClassifier(model).eval()  # training leaves the model in training mode
    with torch.no_grad():
        predicted_B = classifier.classify(images_BCHW)
    names = loaders.class_names
    for label, predicted in zip(labels_B[:3].tolist(), predicted_B[:3].tolist(), strict=True):
        print(f"a {names[label]} was classified as {names[predicted]}")
    return scores.accuracy


if __name__ == "__main__":
    main()
