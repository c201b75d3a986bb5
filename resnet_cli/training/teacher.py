"""Teacher: a trained network that predicts the classes of each training batch for another one to learn from.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from resnet_cli.training.backend import Backend

Combine = Callable[[Tensor, Tensor, Tensor], Tensor]


class Teacher(nn.Module):
    """A trained network that stays in evaluation mode, and the loss of a student that learns from it.

    Args:
        model: Images [B, C, H, W] -> logits [B, K]. `requires_grad` of its parameters is set to False.
        combine: (logits [B, K], the teacher's logits [B, K], loss on the labels) -> loss.
        student_stats: Mean and standard deviation per channel by which the images of a batch are normalised.
        own_stats: The same for the images that the teacher was trained on; None for both if they are equal.
        size: (H, W) of the teacher's images, to which others are resized; None accepts any size.
        order: Index of the teacher's output for each class of the student; None if the order is the same.
    """

    scale: Tensor | None
    shift: Tensor | None
    order: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        combine: Combine,
        *,
        student_stats: tuple[Sequence[float], Sequence[float]] | None = None,
        own_stats: tuple[Sequence[float], Sequence[float]] | None = None,
        size: tuple[int, int] | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.combine, self.size = model.requires_grad_(False), combine, size
        scale = shift = None
        if student_stats is not None and own_stats is not None and student_stats != own_stats:
            (mean, std), (own_mean, own_std) = (
                torch.tensor(stats, dtype=torch.float64)[:, :, None, None] for stats in (student_stats, own_stats)
            )
            scale, shift = (std / own_std).float(), ((mean - own_mean) / own_std).float()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.register_buffer("order", None if order is None else torch.tensor(order))
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits [B, K], in float32, for the student's classes in their order."""
        if self.scale is not None and self.shift is not None:
            images_BCHW = images_BCHW * self.scale + self.shift
        if self.size is not None and images_BCHW.shape[-2:] != self.size:
            images_BCHW = nn.functional.interpolate(images_BCHW, self.size, mode="bilinear", antialias=True)
        logits_BK: Tensor = self.model(images_BCHW).float()
        return logits_BK if self.order is None else logits_BK[:, self.order]


def prepare_teacher(teacher: Teacher | None, backend: Backend) -> Teacher | None:
    """Move a teacher to the backend's device, and compile it if the backend compiles models.

    Raises:
        TypeError: it is another kind of object, such as the bare network.
    """
    if teacher is None:
        return None
    if not isinstance(teacher, Teacher):
        raise TypeError(f"teacher: takes a {Teacher.__module__}.Teacher, not {type(teacher).__name__}")
    backend.prepare_model(teacher)
    teacher.model = backend.compile_model(teacher.model)
    return teacher
