"""What this machine and its Python have, to paste into a report: versions, devices, threads, caches, free disk."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from resnet_cli.files import expand_home
from resnet_cli.info.text_table import LABEL_WIDTH
from resnet_cli.runs.environment import PACKAGES, cpu_name

OPTIONAL_PACKAGES = (
    "timm", "onnx", "onnxruntime", "scipy", "pyarrow", "datasets", "simplejpeg", "optuna", "hydra-joblib-launcher",
    "hydra-submitit-launcher", "hydra-ray-launcher", "tensorboard", "wandb", "mlflow-skinny",
)  # fmt: skip
VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "HF_HUB_OFFLINE",
    "RESNET_CLI_DATA", "RESNET_CLI_CACHE", "NO_COLOR", "FORCE_COLOR",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Return the facts as plain data. The devices are what torch sees, which is imported for them."""
    return {
        "versions": {"python": platform.python_version(), **_versions((*PACKAGES, "pillow", "matplotlib"))},
        "optional": _versions(OPTIONAL_PACKAGES),
        "python": sys.executable,
        "platform": platform.platform(),
        "cpu": _cpu(),
        **_torch(),
        "memory": {"total": psutil.virtual_memory().total, "available": psutil.virtual_memory().available},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "caches": [_folder(purpose, folder) for purpose, folder in _caches().items()],
        "disk": {"folder": str(Path.cwd()), "free": shutil.disk_usage(Path.cwd()).free},
    }


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"name": cpu_name(), "cores": os.cpu_count(), "usable": usable}


def _torch() -> dict[str, Any]:
    """Return the devices and the number of threads that a run would use."""
    import torch

    from resnet_cli.training.device import device_name, resolve_device, resolve_precision

    device = resolve_device("auto")
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "device": device_name(device),
        "precision": resolve_precision("auto", device),
        "cards": [{"name": card.name, "memory": card.total_memory} for card in cards],
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def _caches() -> dict[str, str]:
    """Return the folder of each cache by what it holds."""
    return {
        "data sets": os.environ.get("RESNET_CLI_DATA", "~/.cache/resnet-cli"),
        "decoded images": os.environ.get("RESNET_CLI_CACHE", "~/.cache/resnet-cli/decoded"),
        "torch weights": os.environ.get("TORCH_HOME", "~/.cache/torch"),
        "Hugging Face": os.environ.get("HF_HOME", "~/.cache/huggingface"),
    }


def _folder(purpose: str, folder: str) -> dict[str, Any]:
    """Return the size of a cache, without other caches that lie in its folder."""
    path, size = expand_home(folder), 0
    others = {str(expand_home(other)) for other in _caches().values()} - {str(path)}
    for place, folders, names in os.walk(path):
        folders[:] = [name for name in folders if str(Path(place, name)) not in others]
        size += sum(_size(Path(place, name)) for name in names)
    return {"purpose": purpose, "folder": folder, "exists": path.is_dir(), "bytes": size}


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # deleted since
        return 0


def format_environment(facts: dict[str, Any]) -> list[str]:
    """Format the facts as lines."""
    cpu, memory = facts["cpu"], facts["memory"]
    rows = [
        ("versions", _pairs(facts["versions"])),
        ("optional", _pairs(facts["optional"]) or "none"),
        ("python", facts["python"]),
        ("platform", facts["platform"]),
        ("cpu", f"{cpu['name']}, {cpu['usable']} of {cpu['cores']} cores usable"),
        ("memory", f"{_bytes(memory['available'])} of {_bytes(memory['total'])} available"),
        ("device", f"{facts['device']}, {facts['precision']} with trainer.precision=auto"),
        *(("card", f"{card['name']}, {_bytes(card['memory'])}") for card in facts["cards"]),
        ("cuda", facts["cuda"] or "torch is built without it"),
        ("threads", str(facts["threads"])),
        ("variables", "  ".join(f"{name}={value}" for name, value in facts["variables"].items()) or "none is set"),
        *((cache["purpose"], _cache(cache)) for cache in facts["caches"]),
        ("free disk", f"{_bytes(facts['disk']['free'])} in {facts['disk']['folder']}"),
    ]
    return [f"{label:{LABEL_WIDTH}}{text}" for label, text in rows]


def _cache(cache: dict[str, Any]) -> str:
    return f"{cache['folder']}: {_bytes(cache['bytes']) if cache['exists'] else 'not there'}"


def _pairs(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _bytes(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB"
