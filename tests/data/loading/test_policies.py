"""Policies compared with torchvision's: tables, pixels of each operation, and distributions of what is drawn."""

import pytest
import torch
from torchvision.transforms import v2

from resnet_cli.data.loading.policies import (
    PolicySettings,
    Steps,
    apply_policy,
    apply_steps,
    draw_chains,
    draw_steps,
)
from resnet_cli.data.loading.policy_tables import BINS, CHOICES, OPERATIONS, strengths, sub_policies
from tests.support.augmentation import draws, noise_images, same_categories, same_numbers

THEIRS = {
    "randaugment": v2.RandAugment(), "trivial_augment": v2.TrivialAugmentWide(), "autoaugment": v2.AutoAugment(),
    "augmix": v2.AugMix(),
}  # fmt: skip
SIZE = (12, 18)
MODES = {"nearest": v2.InterpolationMode.NEAREST, "bilinear": v2.InterpolationMode.BILINEAR}


def change(image, operation, strength, mode):
    return THEIRS["randaugment"]._apply_image_or_video_transform(image, operation, strength, MODES[mode], {})


@pytest.mark.parametrize("policy", THEIRS)
def test_strengths_are_torchvisions(policy):
    table, space = strengths(policy, *SIZE), THEIRS[policy]._AUGMENTATION_SPACE
    assert sorted(CHOICES[policy]) == sorted(space)
    for name, (values, signed) in space.items():
        expected = values(BINS[policy], *SIZE)
        number = OPERATIONS.index(name)
        assert table.values[number].tolist() == ([0.0] * BINS[policy] if expected is None else expected.tolist())
        assert bool(table.signed[number]) == signed


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "svhn"])
def test_sub_policies_are_torchvisions(name):
    expected = v2.AutoAugment(v2.AutoAugmentPolicy(name))._policies
    operations, probabilities, bins = (part.tolist() for part in sub_policies(name))
    found = [
        tuple((OPERATIONS[operations[i][j]], probabilities[i][j], bins[i][j]) for j in range(2))
        for i in range(len(operations))
    ]
    assert found == [tuple((step[0], step[1], step[2] or 0) for step in pair) for pair in expected]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_changes_pixels_as_torchvisions(operation, channels):
    """Exactly, with strengths of every policy and both signs; bilinear ones to one level."""
    number = OPERATIONS.index(operation)
    for policy in THEIRS:
        table = strengths(policy, *SIZE)
        values = table.values[number][::4]
        values = torch.cat([values, -values]) if table.signed[number] else values
        images = noise_images(len(values), SIZE, channels)
        expected = {mode: [] for mode in MODES}
        for mode, changed in expected.items():
            changed += [
                change(image, operation, float(value), mode) for image, value in zip(images, values, strict=True)
            ]
        steps = Steps(torch.full((len(values), 1), number), values[:, None])
        assert torch.equal(apply_steps(images, steps, "nearest"), torch.stack(expected["nearest"]))
        difference = apply_steps(images, steps, "bilinear").int() - torch.stack(expected["bilinear"]).int()
        assert difference.abs().max() <= 1
        assert (difference != 0).float().mean() < 1e-3


def test_images_of_a_batch_have_operations_of_their_own():
    images = noise_images(60, (17, 17))
    for settings in (
        PolicySettings("randaugment", ops=3),
        PolicySettings("trivial_augment"),
        PolicySettings("autoaugment"),
    ):
        steps = draw_steps(draws(60), settings, (17, 17))
        expected = []
        for image, operations, values in zip(images, steps.operation.tolist(), steps.strength.tolist(), strict=True):
            for operation, value in zip(operations, values, strict=True):
                image = change(image, OPERATIONS[operation], value, "nearest")
            expected.append(image)
        kept = images.clone()
        assert torch.equal(apply_policy(images, draws(60), settings), torch.stack(expected))
        assert torch.equal(images, kept)


def test_augmix_blends_chains_as_torchvision():
    images = noise_images(40)
    steps, weights = draw_chains(draws(40), 7, (16, 16))
    found = apply_policy(images, draws(40), PolicySettings("augmix", severity=7))
    for number, image in enumerate(images):
        mixed = weights[number, 0].float() * image
        for chain in range(3):
            changed = image
            row = number * 3 + chain
            for operation, value in zip(steps.operation[row].tolist(), steps.strength[row].tolist(), strict=True):
                changed = change(changed, OPERATIONS[operation], value, "bilinear")
            mixed += weights[number, 1 + chain].float() * changed
        assert (found[number].int() - mixed.to(torch.uint8).int()).abs().max() <= 1


class Recorder:
    """What a policy of torchvision applies, without applying it."""

    def __init__(self, policy, monkeypatch):
        self.calls = []
        monkeypatch.setattr(policy, "_apply_image_or_video_transform", self.record)

    def record(self, image, operation, strength, **options):
        self.calls.append((operation, round(strength, 4)))
        return image


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        (PolicySettings("randaugment"), v2.RandAugment()),
        (PolicySettings("randaugment", ops=3, magnitude=20), v2.RandAugment(3, 20)),
        (PolicySettings("trivial_augment"), v2.TrivialAugmentWide()),
        (PolicySettings("autoaugment"), v2.AutoAugment()),
        (PolicySettings("autoaugment", sub_policies="cifar10"), v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)),
        (PolicySettings("autoaugment", sub_policies="svhn"), v2.AutoAugment(v2.AutoAugmentPolicy.SVHN)),
    ],
)
def test_operations_strengths_and_signs_are_drawn_as_torchvision_draws_them(settings, theirs, monkeypatch):
    recorder = Recorder(theirs, monkeypatch)
    torch.manual_seed(0)
    for _ in range(1000):
        theirs(torch.zeros(3, *SIZE, dtype=torch.uint8))
    steps = draw_steps(draws(6000), settings, SIZE)
    pairs = zip(steps.operation.flatten().tolist(), steps.strength.flatten().tolist(), strict=True)
    found = [(OPERATIONS[number], round(value, 4)) for number, value in pairs]
    if settings.name == "autoaugment":  # steps that are left out
        found = [step for step in found if step[0] != "Identity"]
        assert abs(len(found) / 6000 - len(recorder.calls) / 1000) < 0.06
    assert same_categories([step[0] for step in found], [step[0] for step in recorder.calls]) > 0.01
    if settings.name != "trivial_augment":
        assert same_categories(found, recorder.calls) > 0.01
    for operation in ("Rotate", "ShearX", "Color", "Solarize", "Posterize"):
        ours, other = ([value for name, value in steps if name == operation] for steps in (found, recorder.calls))
        assert bool(ours) == bool(other)
        assert not ours or same_numbers(ours, other) > 0.01


def test_augmix_draws_as_torchvision(monkeypatch):
    theirs = v2.AugMix(severity=5)
    recorder = Recorder(theirs, monkeypatch)
    weights = []
    original = theirs._sample_dirichlet
    monkeypatch.setattr(theirs, "_sample_dirichlet", lambda p: weights.append(original(p)) or weights[-1])
    torch.manual_seed(0)
    for _ in range(500):
        theirs(torch.zeros(3, *SIZE, dtype=torch.uint8))
    steps, found_weights = draw_chains(draws(2000), 5, SIZE)
    pairs = zip(steps.operation.flatten().tolist(), steps.strength.flatten().tolist(), strict=True)
    found = [(OPERATIONS[number], round(value, 4)) for number, value in pairs if number]
    assert same_categories(found, recorder.calls) > 0.01
    lengths = (steps.operation > 0).sum(1)
    assert same_categories(lengths.tolist(), [1, 2, 3] * 2000) > 0.01
    assert found_weights.sum(1).allclose(torch.ones((), dtype=torch.float64))
    own, chains = torch.cat(weights[::2]), torch.cat(weights[1::2])
    assert same_numbers(found_weights[:, 0], own[:, 0]) > 0.01
    for chain in range(3):
        assert same_numbers(found_weights[:, 1 + chain], own[:, 1] * chains[:, chain]) > 0.01


def test_a_setting_has_an_effect():
    images = noise_images(30)
    kinds = [PolicySettings(name) for name in THEIRS]
    kinds += [PolicySettings("randaugment", ops=1), PolicySettings("randaugment", magnitude=20)]
    kinds += [PolicySettings("autoaugment", sub_policies="svhn"), PolicySettings("augmix", severity=9)]
    results = [apply_policy(images, draws(30), settings) for settings in kinds]
    assert len({tuple(result.flatten().tolist()) for result in [images, *results]}) == len(kinds) + 1
