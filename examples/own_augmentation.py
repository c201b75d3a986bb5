"""An augmentation of your own: a subclass of `Augment` that changes whole batches of images.

    cd examples
    resnet-train data=turned_shapes                 # conf/data/turned_shapes.yaml names it under `augment`
    resnet-train data=shapes '~data.augment' '+data.augment={_target_: own_augmentation.QuarterTurns, share: 0.5}'

Draw random numbers from the `generator` that is passed, never from the global stream: it is seeded by
(seed, epoch, step), which makes a resumed run draw the same numbers as one that was never stopped.
"""

import torch
from torch import Tensor

from resnet_cli.data import Augment


class QuarterTurns(Augment):
    """Turns each image by 0, 90, 180 or 270 degrees, after an optional random crop.

    Args:
        share: Share of the images that are turned at random; the others stay as they are.
        crop: Padding of the random crop in pixels; 0 is off.
    """

    def __init__(self, *, share: float = 1.0, crop: int = 0) -> None:
        super().__init__(crop=crop)
        if not 0 <= share <= 1:
            raise ValueError(f"share={share}: must be from 0 to 1")
        self.share = share

    @property
    def is_off(self) -> bool:
        """True if every image stays as it is."""
        return self.share == 0 and super().is_off

    def transform_pixels(
        self, images_BCHW: Tensor, indices_B: Tensor, *, epoch: int, seed: int, generator: torch.Generator
    ) -> Tensor:
        """Return the augmented uint8 images; those of an epoch are a function of (seed, epoch, step)."""
        images_BCHW = super().transform_pixels(images_BCHW, indices_B, epoch=epoch, seed=seed, generator=generator)
        count, device = len(images_BCHW), images_BCHW.device
        turns_B = torch.randint(0, 4, (count,), generator=generator, device=device)
        turns_B = turns_B * (torch.rand(count, generator=generator, device=device) < self.share)
        turned_4BCHW = torch.stack([images_BCHW.rot90(turns, dims=(2, 3)) for turns in range(4)])
        return turned_4BCHW[turns_B, torch.arange(count, device=device)]
