"""A teacher: the formula of the loss, its own view of the images, and that it stays as it is."""

import copy
import math

import pytest
import torch
from torch import nn

from resnet_cli import ClassifierTrainer
from resnet_cli.losses import Distillation
from resnet_cli.training.teacher import Teacher
from tests.support.trainers import assert_same, blobs, loader, make_trainer, net, weights


class Shown(nn.Module):
    """Keeps the images that it is shown; its logits are the first pixels."""

    def forward(self, images_BCHW):
        self.images = images_BCHW
        return images_BCHW.flatten(1)[:, :3].double()


def test_the_loss_is_that_of_hinton():
    student, teacher, labels = torch.randn(5, 4), torch.randn(5, 4), torch.randint(4, (5,))
    loss = nn.functional.cross_entropy(student, labels)
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = ([math.exp(x / 3) / sum(math.exp(y / 3) for y in logits) for x in logits] for logits in (t, s))
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 5
    whole = Distillation(temperature=3.0, weight=0.7)(student, teacher, loss)
    assert whole.item() == pytest.approx(0.7 * 9 * expected + 0.3 * loss.item(), rel=1e-5)


def test_a_bare_network_is_no_teacher():
    with pytest.raises(TypeError, match=r"^teacher: takes a resnet_cli\.training\.teacher\.Teacher, not Sequential$"):
        make_trainer(net(), teacher=net())


def test_a_perfect_student_has_no_loss_from_its_teacher():
    logits = torch.randn(5, 4)
    assert Distillation(weight=1.0)(logits, logits, torch.tensor(3.0)).item() == pytest.approx(0, abs=1e-6)
    assert Distillation(weight=0.0)(logits, -logits, torch.tensor(3.0)).item() == 3


def test_the_teacher_sees_images_normalised_as_its_own_were():
    pixels = torch.rand(2, 2, 4, 4)
    mean, std, own_mean, own_std = (0.4, 0.5), (0.2, 0.1), (0.1, 0.3), (0.5, 0.25)

    def normalised(mean, std):
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    shown = Shown()
    teacher = Teacher(shown, Distillation(), student_stats=(mean, std), own_stats=(own_mean, own_std), size=(4, 4))
    teacher(normalised(mean, std))
    torch.testing.assert_close(shown.images, normalised(own_mean, own_std))


def test_the_same_normalisation_changes_no_bit_and_another_size_is_resized():
    shown, images = Shown(), torch.randn(2, 1, 4, 4)
    stats = ((0.4,), (0.2,))
    Teacher(shown, Distillation(), student_stats=stats, own_stats=((0.4,), (0.2,)), size=(4, 4))(images)
    assert shown.images is images
    Teacher(shown, Distillation(), size=(8, 6))(images)
    assert shown.images.shape == (2, 1, 8, 6)


def test_outputs_are_put_into_the_order_of_the_students_classes():
    images = torch.randn(2, 1, 4, 4)
    logits = Teacher(Shown(), Distillation(), order=[2, 0, 1])(images)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, images.flatten(1)[:, :3][:, [2, 0, 1]])


def teacher_net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3), nn.Dropout(0.5))


def test_a_teacher_stays_in_evaluation_mode_and_as_it_is():
    model = teacher_net()
    before = copy.deepcopy(model.state_dict())
    teacher = Teacher(model, Distillation())
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    trainer = make_trainer(net(), teacher=teacher)
    trainer.fit(loader(), None, 2, verbose=False)
    assert_same(before, model.state_dict())
    assert all(p.grad is None for p in model.parameters())


def test_micro_batches_have_the_gradient_of_the_batch():
    results = []
    for accumulate in (1, 4):
        trainer = make_trainer(net(), teacher=Teacher(teacher_net(), Distillation()), accumulate=accumulate)
        trainer.fit(loader(), None, 1, verbose=False)
        results.append(weights(trainer))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, atol=1e-5, rtol=1e-4)


def test_mixed_labels_go_with_a_teacher():
    images, labels = blobs().tensors
    mixed = 0.7 * nn.functional.one_hot(labels, 3) + 0.3 * nn.functional.one_hot(labels.flip(0), 3)
    trainer = make_trainer(net(), teacher=Teacher(teacher_net(), Distillation()))
    result = trainer.fit([(images, mixed)], None, 3, verbose=False)
    assert result.train_loss[-1] < result.train_loss[0]


def test_a_student_comes_to_agree_with_a_teacher_against_the_labels():
    images, labels = blobs().tensors
    expert = net()
    make_trainer(expert).fit(loader(), None, 10, verbose=False)
    teacher = Teacher(expert, Distillation(temperature=1.0, weight=1.0), order=[1, 2, 0])  # knows them by other names
    student = net()
    make_trainer(student, teacher=teacher).fit([(images, labels)], None, 60, verbose=False)
    with torch.no_grad():
        agreed = (student.eval()(images).argmax(1) == teacher(images).argmax(1)).float().mean()
        right = (student(images).argmax(1) == labels).float().mean()
    assert agreed > 0.9
    assert right < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["model", "step"])
def test_compiled_steps_learn_the_same_from_a_teacher(mode, precision):
    results = []
    for compile_mode in ("off", mode):
        model = net()
        trainer = ClassifierTrainer(
            model, None, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), "cpu", seed=0,
            compile=compile_mode, precision=precision, teacher=Teacher(teacher_net(), Distillation(), order=[2, 0, 1]),
        )  # fmt: skip
        trainer.fit(loader(), None, 2, verbose=False)
        results.append(weights(trainer))
    tolerance = 1e-5 if precision == "fp32" else 0.02
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, atol=tolerance, rtol=tolerance)
