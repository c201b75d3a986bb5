"""Images with several labels: class counts, and splits that preserve the share of each class.

Shapes: N images, K classes. Labels are int64 [N] for one class per image, bool [N, K] for several.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from resnet_cli.seeding import seeded_generator


def count_classes(labels: Tensor, classes: int) -> Tensor:
    """Return the number of images of each class, int64 [K], for labels in either form."""
    return labels.sum(0) if labels.ndim == 2 else torch.bincount(labels, minlength=classes)


def describe_lists(name: str, class_names: Sequence[str]) -> list[str]:
    """Return a problem if the classes of a data set are parts of lists, such as `['cat'` and `'dog']`."""
    opened = [each for each in class_names if each.startswith(("[", "(", "{")) and not set("])}") & set(each)]
    closed = [each for each in class_names if each.endswith(("]", ")", "}")) and not set("[({") & set(each)]
    whole = [each for each in class_names if each.startswith(("['", '["', "[]"))]
    found = [opened[0], closed[0]] if opened and closed else whole[:1]
    if not found:
        return []
    parts = " and ".join(map(repr, found))
    return [f"{name}: labels are lists, with classes such as {parts}; write the class names with | between them"]


def draw_label_sets(labels_NK: Tensor, count: int, seed: int, purpose: str) -> Tensor:
    """Draw images by iterative stratification (Sechidis et al. 2011), so that each class keeps its share.

    The class with the fewest remaining images is distributed first, and so on: each of its images goes to the part that
    lacks most images of the class; ties go to the part that lacks most images overall. Unlike in the paper, no part
    exceeds its target size, so that sizes are exact.

    Args:
        labels_NK: Bool [N, K].
        count: Images to draw, at most N.
        seed: The draw is a function of `labels_NK`, `count`, `seed` and `purpose` alone.
        purpose: Part of the seed, as in `seeded_generator`.

    Returns:
        Sorted indices, int64 [count].
    """
    total = len(labels_NK)
    order = torch.randperm(total, generator=seeded_generator("cpu", seed, purpose)).tolist()
    classes_of = [row.nonzero().flatten().tolist() for row in labels_NK]
    images_of: list[list[int]] = [[] for _ in range(labels_NK.shape[1])]
    for image in order:
        for k in classes_of[image]:
            images_of[k].append(image)
    left = [len(images) for images in images_of]
    shares = (1 - count / max(total, 1), count / max(total, 1))
    lacking_of = [[share * n for n in left] for share in shares]  # [part][class] images that are missing
    lacking = [total - count, count]
    part_of: dict[int, int] = {}

    def assign(image: int, part: int) -> None:
        part_of[image] = part
        lacking[part] -= 1
        for k in classes_of[image]:
            left[k] -= 1
            lacking_of[part][k] -= 1

    while any(left):
        rarest = min((n, k) for k, n in enumerate(left) if n)[1]
        for image in images_of[rarest]:
            if image not in part_of:
                assign(image, max((0, 1), key=lambda p: (lacking[p] > 0, lacking_of[p][rarest], lacking[p])))
    for image in order:  # images without labels
        if image not in part_of:
            assign(image, max((0, 1), key=lambda p: lacking[p]))
    return torch.tensor(sorted(image for image, part in part_of.items() if part == 1), dtype=torch.int64)
