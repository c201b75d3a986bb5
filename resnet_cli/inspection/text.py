"""The report of resnet-data as lines of text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.inspection.copies import PARTS
from resnet_cli.session.data_checks import RARE_FROM

Report = Mapping[str, Any]

LONG_LIST = 24  # classes from which only the largest and the smallest are shown
ENDS = 10  # classes shown at each end of a long list
MAX_GROUPS = 20  # groups of equal images in the list
MAX_SUSPICIOUS = 10  # images listed of each kind
MAX_SIZES = 5
FEW = 10  # images of a rare class in a part below which a warning names their number
MAX_NAME = 48  # characters of a class name in the table of classes
MORE = "--format json lists all"


def format_report(report: Report) -> list[str]:
    """Format the whole report."""
    return [*format_overview(report), "", *format_findings(report)]


def format_overview(report: Report) -> list[str]:
    """Format the splits, the files and the classes."""
    size = "x".join(map(str, report["size"]))
    return [
        f"data        {report['data']}: {counted(len(report['classes']), 'class')}, images of {size}",
        *(f"splits      {line}" if not i else f"            {line}" for i, line in enumerate(format_parts(report))),
        *([f"from        {report['origins']}"] if report["origins"] else []),
        f"files       {format_sizes(report)}",
        *([f"modes       {modes}"] if (modes := format_modes(report)) else []),
        f"channels    {format_statistics(report)}",
        f"decoding    {format_decoding(report)}",
        *(f"refused     {problem}" for problem in report["problems"]),
        *(f"warning     {line}" for line in report["notes"]),
        *([f"warning     {report['names_alike']}"] if report["names_alike"] else []),
        "",
        *_class_lines(report),
    ]


def format_findings(report: Report, max_damaged: int | None = None) -> list[str]:
    """Format problems and duplicates of images; `max_damaged` limits the list of damaged ones."""
    return [*_bad_lines(report, max_damaged), *_duplicate_lines(report), *_near_lines(report)]


def format_parts(report: Report) -> Iterator[str]:
    """Yield a line for each split: its number of images, and how they were chosen."""
    for part, found in report["parts"].items():
        line = f"{part:5} {found['images']:>9,} {'image' if found['images'] == 1 else 'images'}"
        if found["split"] != part:
            line += f", held out from the {found['of']:,} of {found['split']}"
        elif found["images"] != found["of"]:
            line += f" of {found['of']:,}"
        yield line
    if "val" not in report["parts"]:
        yield "val           none: the last epoch is tested"


def format_sizes(report: Report) -> str:
    """Format the number of images of each size, or of the most common ones if there are many."""
    sizes = report["files"]["sizes"]
    kind = "files" if report["files"]["are_files"] else "images in memory"
    shown = ", ".join(f"{s['images']:,} of {s['width']}x{s['height']}" for s in sizes[:MAX_SIZES])
    if len(sizes) <= MAX_SIZES:
        return f"{kind}: {shown or 'none can be read'}"
    widths, heights = ([s[side] for s in sizes] for side in ("width", "height"))
    return (
        f"{kind}: {shown}, and {counted(len(sizes) - MAX_SIZES, 'more size')}: {min(widths)} to {max(widths)} wide, "
        f"{min(heights)} to {max(heights)} high"
    )


def format_modes(report: Report) -> str:
    """Format the number of files of each mode."""
    return ", ".join(f"{count:,} {mode}" for mode, count in report["files"]["modes"].items())


def format_statistics(report: Report) -> str:
    """Format the mean and standard deviation of each channel of the training images."""
    found = report["statistics"]
    mean, std = (" ".join(f"{value:.4f}" for value in found[name][:8]) for name in ("mean", "std"))
    more = f" (of {len(found['mean'])} channels)" if len(found["mean"]) > 8 else ""
    own = "" if found["used_mean"] is None else "; normalised with the data set's own"
    return f"mean {mean}, std {std}{more}{own}"


def format_decoding(report: Report) -> str:
    """Format the time of the pass over all images, and where decoded images are cached."""
    found = report["decoding"]
    megabytes, images = f"{found['bytes'] / 1e6:,.1f} MB", counted(found["images"], "image")
    if not found["are_files"]:
        return f"none: {images} in memory, {megabytes}; inspected in {found['seconds']:.1f} s"
    how = "read from the cache" if found["was_cached"] else "decoded"
    place = "no cache" if found["cache"] is None else f"cache {found['cache']}"
    state = "" if found["cache"] is None or found["is_cached"] else ", not kept yet"
    return f"{images} {how} and examined in {found['seconds']:.1f} s; {megabytes}, {place}{state}"


def format_imbalance(report: Report) -> str:
    """Format the ratio between the largest and the smallest class of the training images."""
    ordered = sorted(report["classes"], key=lambda row: row["train"])
    if report["imbalance"] is None:
        return f"no training image of {ordered[0]['name']}"
    smallest, largest = ordered[0], ordered[-1]
    if smallest["train"] == largest["train"]:
        return f"balanced: {counted(largest['train'], 'training image')} each"
    return (
        f"imbalance {report['imbalance']:.2f}: {counted(largest['train'], 'training image')} of {largest['name']}, "
        f"{smallest['train']:,} of {smallest['name']}"
    )


def rare_lines(report: Report) -> list[str]:
    """Return advice on rare classes, with the few images that their metrics will depend on; empty if none is rare."""
    if (report["imbalance"] or 1) < RARE_FROM:
        return []
    rarest = min(report["classes"], key=lambda row: row["train"])
    lines = [
        "  to weight classes equally, set loss.class_weights=balanced (or data.sampler=balanced) and "
        "trainer.select_by=val_balanced_accuracy"
    ]
    few = [f"{rarest[part]:,} {SPLIT_NAMES[part]}" for part in ("val", "test") if rarest.get(part, FEW) < FEW]
    if few:
        lines.append(
            f"  metrics of {_short(rarest['name'])} depend on few images ({', '.join(few)}): "
            "-m data.folds=5 data.fold=0,1,2,3,4 validates on each image once"
        )
    return lines


def format_member(member: Report) -> str:
    """Format the file of an image with its part and class."""
    return f"{member['image']} ({member['part']}, {member['class']})"


def describe_group(group: Sequence[Report]) -> str:
    """Name the problem of a group of equal images: a leak, a doubtful label, or copies in one split."""
    parts = [part for part in PARTS if any(member["part"] == part for member in group)]
    marks = [" and ".join(parts)] if len(parts) > 1 else [f"within {parts[0]}"]
    if len({member["class"] for member in group}) > 1:
        marks.append("different classes")
    return ", ".join(marks)


def severity(group: Sequence[Report]) -> tuple[bool, bool]:
    """Return a sort key that puts the worst groups first: those in two splits, then those with two labels."""
    return len({m["part"] for m in group}) == 1, len({m["class"] for m in group}) == 1


def _class_lines(report: Report) -> list[str]:
    rows = report["classes"]
    parts = [part for part in PARTS if part in report["parts"]]
    shown: list[Report | None] = list(rows)
    if len(rows) > LONG_LIST:
        ordered = sorted(rows, key=lambda row: -row["train"])
        shown = [*ordered[:ENDS], None, *ordered[-ENDS:]]
    width = max(5, *(len(_short(row["name"])) for row in shown if row))
    lines = [
        format_imbalance(report),
        *rare_lines(report),
        f"{'class':{width}}" + "".join(f"{part:>10}" for part in parts),
    ]
    for row in shown:
        if row is None:
            lines.append(f"... {counted(len(rows) - 2 * ENDS, 'more class')}")
        else:
            lines.append(f"{_short(row['name']):{width}}" + "".join(f"{row[part]:>10,}" for part in parts))
    return lines


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."


def _bad_lines(report: Report, max_damaged: int | None) -> Iterator[str]:
    damaged = report["damaged"]
    yield f"damaged     {len(damaged) or 'none'}"
    shown = damaged[:max_damaged]
    for found in shown:
        yield f"  {found['problem']} ({found['part']}, {found['class']})"
    yield from _more_line(len(damaged), len(shown), "  ")
    total = sum(map(len, report["suspicious"].values()))
    yield f"suspicious  {total or 'none'}"
    for kind, found in report["suspicious"].items():
        if found:
            yield f"  {kind}: {len(found)} ({found[0]['problem']})"
            yield from (f"    {format_member(member)}" for member in found[:MAX_SUSPICIOUS])
            yield from _more_line(len(found), MAX_SUSPICIOUS, "    ")


def format_copies(report: Report) -> list[str]:
    """Format a line for each kind of exact duplicate."""
    found = report["duplicates"]
    lines = [f"{counted(count, 'image')} of {pair}" for pair, count in found["across_parts"].items()]
    if found["across_classes"]["groups"]:
        images, groups = found["across_classes"]["images"], found["across_classes"]["groups"]
        lines.append(f"{counted(images, 'image')} in {counted(groups, 'group')} of equal images with different classes")
    lines += [
        f"{counted(count, 'image')} of {part} {'is a copy of another' if count == 1 else 'are copies of others'} in it"
        for part, count in found["within"].items()
    ]
    return lines


def _duplicate_lines(report: Report) -> Iterator[str]:
    lines = format_copies(report)
    yield f"duplicates  {'none' if not lines else 'images with the same pixels'}"
    yield from (f"  {line}" for line in lines)
    groups = sorted(report["duplicates"]["groups"], key=severity)
    for group in groups[:MAX_GROUPS]:
        yield f"  {describe_group(group)}: {' = '.join(map(format_member, group[:4]))}" + _format_rest(group)
    yield from _more_line(len(groups), MAX_GROUPS, "  ")


def format_near(found: Report) -> str:
    """Format the number of pairs of near-duplicates."""
    count = counted(found["pairs"], "pair") if found["is_all"] else f"more than {counted(found['limit'], 'pair')}"
    across = "".join(f", {number:,} of {pair}" for pair, number in found["across_parts"].items())
    return (
        f"{count} of images that differ in at most {found['max_distance']} of 64 bits of a perceptual hash"
        f"{across}, {found['across_classes']:,} of different classes"
    )


def _near_lines(report: Report) -> Iterator[str]:
    found = report["near_duplicates"]
    if found is None:
        return
    yield f"near        {format_near(found)}"
    for pair in found["list"][:MAX_GROUPS]:
        yield f"  {pair['bits']} bits: {' ~ '.join(map(format_member, pair['images']))}"
    yield from _more_line(len(found["list"]), MAX_GROUPS, "  ")


def _format_rest(group: Sequence[Report]) -> str:
    return f" and {len(group) - 4} more" if len(group) > 4 else ""


def _more_line(count: int, shown: int, indent: str) -> Iterator[str]:
    if count > shown:
        yield f"{indent}... and {count - shown:,} more; {MORE}"
