"""A Sphinx extension: pages that hold `<!-- generated: NAME -->` get that text when they are read; notebooks are pages.

Nothing generated is stored, so nothing can differ from the code.
"""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cli.config.former_names import FORMER

if TYPE_CHECKING:
    from sphinx.application import Sphinx

if __package__:
    from docs._ext.command_reference import command_pages
    from docs._ext.key_reference import key_pages, option_tables
else:  # Sphinx finds it by sys.path
    from command_reference import command_pages
    from key_reference import key_pages, option_tables

MARK = re.compile(r"<!-- generated: (\w+) -->")
NOTEBOOK = re.compile(r"<!-- notebook: ([\w./]+) -->")
LINK_UP = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)[^)]*\)")


def former_names() -> str:
    """Return a table of dotted names of earlier versions and their present names."""
    rows = [f"| `{old}` | `{new}` |" for old, new in FORMER.items()]
    return "\n".join(["| former name | present name |", "|---|---|", *rows])


def glossary() -> str:
    """Return the table of words that CONTRIBUTING.md has."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("\n## Glossary\n")[2].partition("\n## ")[0]
    return "\n".join(line for line in section.splitlines() if line.startswith("|"))


GENERATORS: dict[str, Callable[[], str]] = {
    "keys": key_pages,
    "options": option_tables,
    "commands": command_pages,
    "former_names": former_names,
    "glossary": glossary,
}


def notebook_page(path: Path, pictures: Path) -> str:
    """Return a stored notebook as Markdown with its outputs; nothing is executed.

    Args:
        path: The notebook.
        pictures: A folder that its pictures are written to.
    """
    lines: list[str] = []
    pictures.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        lines += [source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```", ""]
        for output in cell.get("outputs", []):
            if "text" in output:
                lines += ["```text", "".join(output["text"]).rstrip(), "```", ""]
            elif "image/png" in output.get("data", {}):
                picture = pictures / f"{path.stem}_{number}.png"
                data = base64.b64decode("".join(output["data"]["image/png"]))
                if not picture.exists() or picture.read_bytes() != data:
                    picture.write_bytes(data)
                lines += [f"![What the cell above draws](/_built/{picture.name})", ""]
    return "\n".join(lines)


def fill(app: "Sphinx", name: str, source: list[str]) -> None:
    """Replace the marks of a page by what they name, and links to files outside of docs/ by their text."""
    folder = Path(app.srcdir).resolve()
    place = (folder / name).parent

    def within(link: re.Match[str]) -> str:
        return link[0] if (place / link[2]).resolve().is_relative_to(folder) else link[1]

    text = MARK.sub(lambda found: GENERATORS[found[1]](), LINK_UP.sub(within, source[0]))
    source[0] = NOTEBOOK.sub(lambda found: notebook_page(folder / found[1], folder / "_built"), text)


def setup(app: "Sphinx") -> dict[str, bool]:
    """Connect the extension."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
