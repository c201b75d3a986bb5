"""Training on a `torch.utils.data.DataLoader`, batch by batch, without a notebook.

    python examples/train_with_dataloader.py

The smallest use of `ClassifierTrainer`: your own tensors, your own loop over epochs.
"""

import torch
from torch.utils.data import DataLoader, TensorDataset

from resnet_cli import ClassifierTrainer
from resnet_cli.models import CNN


def main() -> float:
    """Train a small CNN on points that are brighter above or below the middle; return the accuracy in percent."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(512) % 2
    images_NCHW = torch.randn(512, 1, 8, 8, generator=generator)
    images_NCHW[labels_N == 1, :, :4] += 1.0
    images_NCHW[labels_N == 0, :, 4:] += 1.0
    train = TensorDataset(images_NCHW[:384], labels_N[:384])
    test = TensorDataset(images_NCHW[384:], labels_N[384:])

    torch.manual_seed(0)
    model = CNN(
        (1, 8, 8),
        2,
        channels=[8],
        pool_every=1,
        hidden_dims=[16],
        conv_params={"kernel_size": 3},
        pooling_params={"kernel_size": 2},
    )
    trainer = ClassifierTrainer(model, torch.nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-2))
    accuracy = 0.0
    for epoch in range(3):
        batches = DataLoader(train, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(epoch))
        losses = trainer.train_epoch(batches, verbose=False).losses
        accuracy = trainer.test_epoch(DataLoader(test, batch_size=128), verbose=False).accuracy
        print(f"epoch {epoch + 1}: mean training loss {sum(losses) / len(losses):.3f}, test accuracy {accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
