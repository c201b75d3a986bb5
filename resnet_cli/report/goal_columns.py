"""The results of a table's groups for its goal, as columns and as lines."""

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.report.goal import assess_goal
from resnet_cli.report.groups import Table
from resnet_cli.report.keys import ABSENT


def goal_columns(table: Table) -> dict[str, list[str]]:
    """Return the columns with each group's result for the table's goal, by heading; empty without a goal."""
    if table.goal is None:
        return {}
    found = [assess_goal(group.averaged, table.goal) for group in table.groups]
    return {"95 % interval": [each.interval or ABSENT for each in found], table.goal.title: [e.words for e in found]}


def goal_lines(table: Table) -> list[str]:
    """Return a line with each group's result for the table's goal; none without a goal."""
    names = [escape_control_characters(table.label(group)) for group in table.groups]
    intervals, words = list(goal_columns(table).values()) or ([], [])
    lines = zip(names, words, intervals, strict=False)
    return [
        f"{table.goal.title}, {name}: {text}{f'; 95 % interval {ends}' if ends != ABSENT else ''}"
        for name, text, ends in lines
        if table.goal
    ]
