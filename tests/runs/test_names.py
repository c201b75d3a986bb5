"""Commands that the user can type again, and texts as the values of overrides."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from resnet_cli.runs.names import quote_override


@pytest.mark.parametrize(
    "text",
    ["runs/a", "2026-11-21/10-02-11-resnet20-lbrm", "1e-3", "0.10", "1_000", ".5", "true", "NULL", "inf", "-3", "a b",
     "a=b,c", 'a"b', "a\\", "${x}", "ü", "1e-3/x"],
)  # fmt: skip
def test_hydra_reads_a_quoted_text_as_that_text(text):
    found = OverridesParser.create().parse_override(f"key={quote_override(text)}").value()
    assert found == text.replace("${", "\\${")
