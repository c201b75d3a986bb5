"""Model of scaling to many GPUs, computed from the bytes of a step and published bandwidths of links.

The time of a step is its time on one GPU plus that of a sum of gradients over all GPUs; the program sums once, after
the backward pass, so that nothing overlaps. The batch per GPU is constant. Within a node the sum is a ring all-reduce;
over several nodes it is a reduce-scatter within each node, a ring over the nodes for each part, and an all-gather
within each node. A ring of n sends 2(n-1)/n of the bytes over each link, in 2(n-1) messages.

The rates are nominal bandwidths for one direction, of which libraries reach 80 to 95 %. The latency of a message is the
one that NCCL assumes when it chooses an algorithm, for rings and large messages (`hwLat` in src/graph/tuning.cc); that
of Ethernet with TCP is an assumption.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import measuring

GPUS = (8, 16, 64, 256, 1024)
GPUS_OF_NODE = 8
GPU_RESULTS = Path(__file__).parent / "results" / "gpu.json"
MEASURED = {"resnet20": "ResNet-20", "resnet18": "ResNet-18"}  # net -> its name in the results of gpu.py
VARIANT = "compile=model"  # compile=step is for a single process


@dataclass(frozen=True)
class Link:
    """A link between GPUs or nodes.

    Args:
        name: Name of the link.
        rate: Bytes per second in one direction.
        latency: Seconds per message.
        source: Source of the rate.
    """

    name: str
    rate: float
    latency: float
    source: str


NVLINK4 = Link("NVLink 4", 450e9, 3.4e-6, "NVIDIA H100 data sheet: 900 GB/s in both directions")
NVLINK3 = Link("NVLink 3", 300e9, 3.4e-6, "NVIDIA A100 data sheet: 600 GB/s in both directions")
PCIE5 = Link("PCIe 5.0 x16", 32e9 * 16 * 128 / 130 / 8, 5.7e-6, "PCI-SIG: 32 GT/s a lane, 128b/130b")
PCIE4 = Link("PCIe 4.0 x16", 16e9 * 16 * 128 / 130 / 8, 5.7e-6, "PCI-SIG: 16 GT/s a lane, 128b/130b")
NDR = Link("InfiniBand NDR", 400e9 / 8, 9.6e-6, "InfiniBand Trade Association: 400 Gb/s on 4 lanes")
NDR200 = Link("InfiniBand NDR200", 200e9 / 8, 9.6e-6, "InfiniBand Trade Association: 200 Gb/s on 2 lanes")
HDR = Link("InfiniBand HDR", 200e9 / 8, 9.6e-6, "InfiniBand Trade Association: 200 Gb/s on 4 lanes")
GBE100 = Link("100 GbE", 100e9 / 8, 30e-6, "IEEE 802.3")
GBE25 = Link("25 GbE", 25e9 / 8, 30e-6, "IEEE 802.3")
GBE10 = Link("10 GbE", 10e9 / 8, 30e-6, "IEEE 802.3")
LINKS = (NVLINK4, NVLINK3, PCIE5, PCIE4, NDR, NDR200, HDR, GBE100, GBE25, GBE10)


class Fabric(NamedTuple):
    """The links of a cluster: between the GPUs of a node, and a number of links from each node to the others."""

    inside: Link
    between: Link
    links_of_node: int

    @property
    def name(self) -> str:
        """The names of the links."""
        return f"{self.inside.name}; {self.links_of_node} x {self.between.name}"


FABRICS = (
    Fabric(NVLINK4, NDR, 8), Fabric(NVLINK3, HDR, 8), Fabric(PCIE5, NDR, 1), Fabric(PCIE5, NDR200, 1),
    Fabric(PCIE4, GBE100, 1), Fabric(PCIE4, GBE25, 1), Fabric(PCIE4, GBE10, 1),
)  # fmt: skip


def ring_seconds(size: int, count: float, rate: float, latency: float) -> float:
    """Return the seconds of a ring all-reduce.

    Args:
        size: Number of members of the ring.
        count: Bytes to sum.
        rate: Bytes per second of each link.
        latency: Seconds per message.
    """
    return 2 * (size - 1) / size * count / rate + 2 * (size - 1) * latency


def sum_seconds(gpus: int, count: float, fabric: Fabric, of_node: int = GPUS_OF_NODE) -> float:
    """Return the seconds in which GPUs sum `count` bytes; see the module's docstring.

    There are as many rings over the nodes as GPUs in a node, and they share its links.
    """
    inside = ring_seconds(min(gpus, of_node), count, fabric.inside.rate, fabric.inside.latency)
    nodes = -(-gpus // of_node)
    rate = fabric.between.rate * fabric.links_of_node
    return inside + ring_seconds(nodes, count, rate, fabric.between.latency)


def step_sums_seconds(gpus: int, sizes: Sequence[int], fabric: Fabric) -> float:
    """Return the seconds of all sums of a step, whose sizes are given in bytes."""
    return sum(sum_seconds(gpus, count, fabric) for count in sizes)


def efficiency(step: float, summing: float) -> float:
    """Return the share of computation in a step, which is the efficiency of weak scaling."""
    return step / (step + summing)


class StepTime(NamedTuple):
    """Seconds of a step on one GPU, and the source of the figure."""

    seconds: float
    source: str


def step_times(given: Sequence[str], results: Path = GPU_RESULTS) -> dict[str, StepTime]:
    """Return the time of a step of each net on one GPU: measured, or given as `NET=MILLISECONDS`."""
    found = {}
    record = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {"nets": {}}
    for net, name in MEASURED.items():
        if name in record["nets"]:
            one = record["nets"][name]
            rate, batch = one["variants"][VARIANT]["samples_per_second"], one["batch_size"]
            found[net] = StepTime(batch / rate, f"batch {batch}, measured on one {record['card']} ({VARIANT})")
    for item in given:
        net, _, milliseconds = item.partition("=")
        try:
            found[net] = StepTime(float(milliseconds) / 1e3, "given by --step-ms")
        except ValueError:
            raise SystemExit(f"error: --step-ms {item}: NET=MILLISECONDS") from None
    return found


class Tables(NamedTuple):
    """The model as tables and as data."""

    texts: list[str]
    record: dict[str, Any]


def tables(steps: Mapping[str, StepTime], exchanged: Mapping[str, Mapping[str, Any]]) -> Tables:
    """Return the model of all nets and fabrics."""
    texts = ["A model: nothing in it was measured on several GPUs. Efficiency, and milliseconds of the sums of a step:"]
    record = {}
    header = ["inside a node; between nodes", *(f"{number:,} GPUs" for number in GPUS)]
    for net, step in steps.items():
        counted = exchanged[net]
        rows, values = [], {}
        for fabric, key in [*((fabric, "plain") for fabric in FABRICS), (FABRICS[0], "sync_batch_norm")]:
            times = [step_sums_seconds(gpus, counted[key], fabric) for gpus in GPUS]
            name = fabric.name + (", synchronised batch norm" if key != "plain" else "")
            cells = [f"{efficiency(step.seconds, time):.2f} ({1e3 * time:.2f})" for time in times]
            rows.append([name, *cells])
            values[name] = {str(gpus): time for gpus, time in zip(GPUS, times, strict=True)}
        texts.append(f"{title_of(net, step, counted)}\n\n{measuring.table(header, rows)}")
        record[net] = {"step_seconds": step.seconds, "step_source": step.source, "sum_seconds": values}
    links = [[link.name, f"{link.rate / 1e9:.2f}", f"{1e6 * link.latency:g}", link.source] for link in LINKS]
    texts.append(measuring.table(["link", "GB/s in one direction", "us a message", "source of the rate"], links))
    return Tables(texts, record)


def title_of(net: str, step: StepTime, counted: Mapping[str, Any]) -> str:
    """Return the line above a net's table."""
    plain, together = (f"{sum(counted[key]) / 1e6:.2f} MB" for key in ("plain", "sync_batch_norm"))
    return (
        f"{net}: {counted['parameters']:,} parameters, {plain} in {len(counted['plain'])} sum a step, {together} in "
        f"{len(counted['sync_batch_norm'])} sums with synchronised batch norm; {1e3 * step.seconds:.1f} ms a step on "
        f"one GPU: {step.source}"
    )
