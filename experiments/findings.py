"""What check, doctor and why report: one kind of finding, and the one way to print it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LEVELS = ("error", "warning", "note", "ok")
KeyPath = tuple[str | int, ...]  # of a key in an experiment file, such as ("searchSpace", "lr"); int: place in a list


class ExperimentError(Exception):
    """What ends a command, in one line without a traceback: what was found, what was expected, the next command."""


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know before, during or after a run.

    level: "error" stops a launch and fails doctor; "warning"; "note"; "ok" is doctor's alone, for a check that passed.
    key: short and stable, such as "space.unknown_field": what tests and programs compare, never the text.
    text: what was found and what was expected, its first line complete in itself.
    next: the next step, a command where there is one, or "".
    path: the key of the experiment file that it is about; () where it is about none.
    """

    level: str
    key: str
    text: str
    next: str = ""
    path: KeyPath = ()


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The same findings, errors first; the order within a level stays."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def has_error(findings: Iterable[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)


def format_finding(finding: Finding, where: str = "") -> str:
    """ "error: FILE:4: text", with the next step in a line of its own where there is one."""
    lines = f"{finding.level}: {f'{where}: ' if where else ''}{finding.text}".split("\n")
    return "\n    ".join([*lines, *([f"next: {finding.next}"] if finding.next else [])])
