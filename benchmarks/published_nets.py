"""Checks that the net of a preset is that of a published program: equal logits and gradients from the same weights.

    python benchmarks/published_nets.py --pytorch_resnet_cifar10 DIR --pytorch-cifar DIR --cifar10-airbench DIR

The weights of the published net are copied to the preset's, layer by layer in order, and both are applied to the same
random images in training mode. A difference is the largest absolute one, relative to the largest value; in float32 it
should be under 1e-4.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import torch
from airbench_script import CPU, HostEvent, patched, run_source
from measuring import RESULTS
from published import FILES, PAIRS, add_folders
from published_programs import arguments_are, importable
from torch import Tensor, nn

from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.session import build

BATCH = 16
TOLERANCE = 1e-4  # of float32
# pytorch_resnet_cifar10 puts half of the channels that a parameter-free shortcut adds before and half after the others,
# the preset all of them after. The nets are equal up to the order of channels; the patch uses the preset's order.
PADDING = {"planes//4, planes//4": "0, planes//2"}


def published_net(program: str, folder: Path) -> nn.Module:
    """Build the net of a program with its own initial weights."""
    with importable(folder):
        if program == "pytorch_resnet_cifar10":
            return module_of(folder / "resnet.py", PADDING).resnet20()
        if program == "pytorch-cifar":
            return module_of(folder / "models" / "resnet.py").ResNet18()
        net = module_of(folder / FILES[program], CPU).CifarNet()
        net.reset()
        return net


def module_of(path: Path, changes: Mapping[str, str] | None = None) -> ModuleType:
    source = patched(path.read_text(encoding="utf-8"), changes or {})
    with arguments_are(str(path), []):  # airbench reads its own source from sys.argv[0]
        return run_source(source, path, {"HostEvent": HostEvent})


def preset_net(preset: tuple[str, ...]) -> nn.Module:
    """Build the net of a preset."""
    settings = compose_settings(["data=cifar10", *preset]).settings
    return build.model(settings["model"], in_size=(3, 32, 32), num_classes=10, seed=0)


def layers(net: nn.Module) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
    """Yield the modules with direct tensors, in order, with these tensors."""
    for module in net.modules():
        own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        if own:
            yield module, own


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy all tensors, layer by layer.

    Raises:
        ValueError: the layers differ.
    """
    for number, ((_, theirs), (layer, ours)) in enumerate(zip(layers(source), layers(target), strict=True)):
        shapes = [{name: tuple(tensor.shape) for name, tensor in side.items()} for side in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"layer {number}, {type(layer).__name__}: {shapes[0]} there, {shapes[1]} here")
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])


def differences(theirs: nn.Module, ours: nn.Module) -> dict[str, float]:
    """Return the largest relative differences of logits and gradients, and the numbers of trained weights."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (BATCH,), generator=generator)
    found = []
    for net in (theirs, ours):
        net.train()
        logits = net(images)
        nn.functional.cross_entropy(logits, labels).backward()
        found.append((logits.detach(), gradients(net)))
    (logits, grads), (own_logits, own_grads) = found
    worst = max(share(grads[at], own_grads[at]) for at in grads)  # of weights that train in the published net
    counts = [sum(p.numel() for p in net.parameters() if p.requires_grad) for net in (theirs, ours)]
    return {
        "logits": share(logits, own_logits), "gradients": worst, "published_weights": counts[0],
        "preset_weights": counts[1],
    }  # fmt: skip


def gradients(net: nn.Module) -> dict[tuple[int, str], Tensor]:
    """Return all existing gradients by layer number and name."""
    return {
        (number, name): tensor.grad
        for number, (_, own) in enumerate(layers(net)) for name, tensor in own.items() if tensor.grad is not None
    }  # fmt: skip


def share(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--out", type=Path, default=RESULTS / "published_nets.json")
    options = parser.parse_args(arguments)
    result = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    for name, pair in PAIRS.items():
        folder = getattr(options, pair.program.replace("-", "_"))
        if folder is not None:
            theirs, ours = published_net(pair.program, folder.resolve()), preset_net(pair.preset)
            copy_weights(theirs, ours)
            result[name] = {"program": pair.program, **differences(theirs, ours)}
            print(f"{name}: {result[name]}")
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(max(found["logits"], found["gradients"]) < TOLERANCE for found in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
