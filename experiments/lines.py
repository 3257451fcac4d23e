"""In which line of which file stands what a finding speaks of? A finding's text begins with a key or an entry's name."""

from __future__ import annotations

import re
from pathlib import Path

import yaml


def place(file: Path, text: str) -> str:
    """FILE:LINE of the entry of the search space or the key that `text` begins with; FILE alone where there is none.

    Where the text quotes something that stands below that key ('maximise'), the line is that one's.
    """
    nodes = _nodes(file)
    name = re.match(r"[\w.-]+( space)?", text)
    name = name[0].rstrip(".") if name else ""
    space_file = next((node.value for key, node in nodes.items() if key == "searchspacefile"), None)
    if name == "search space":
        return _at(file, nodes.get("searchspacefile") or nodes.get("searchspace"))
    if space_file is not None and "searchspace" not in nodes:
        inner = resolved(file, space_file)
        if node := _entry(_compose(inner), name):
            return _at(shown(inner), node)
    if node := _entry(nodes.get("searchspace"), name):
        return _at(file, node)
    node = nodes.get(plain(name)) or _below(nodes.get("trainingservice"), name)
    quoted = _quoted(node, text) if node is not None else None
    return _at(file, quoted or node)


def place_of_refusal(file: Path, reason: str) -> str:
    """FILE:LINE of the first key of the file that NNI's own message names."""
    words = {plain(word) for word in re.findall(r"\w+", reason)}
    return _at(file, next((node for key, node in _nodes(file).items() if key in words), None))


def duplicate(file: Path) -> str | None:
    """The first key of a YAML or JSON file that is given twice in one mapping, with both lines; None where there is none."""
    root = _compose(file) or _compose(file, "\t")
    return _duplicate(file, root, True, set()) if root is not None else None


def _duplicate(file: Path, node: yaml.Node, is_nnis: bool, seen: set[int]) -> str | None:
    """is_nnis: its keys are NNI's own, which are compared without case and underscores. Merge keys (<<) may repeat."""
    if id(node) in seen:  # an alias
        return None
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, (_duplicate(file, part, is_nnis, seen) for part in node.value)), None)
    first: dict[object, yaml.Node] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.tag != "tag:yaml.org,2002:merge":
            name = plain(key.value) if is_nnis else (key.tag, str(key.value))
            before = first.setdefault(name, key)
            if before is not key:
                same = "it" if before.value == key.value else f"{before.value}, which NNI takes for the same key,"
                return f"{_at(file, key)}: {key.value} is given twice: line {before.start_mark.line + 1} has {same} too"
        inner = _duplicate(file, value, is_nnis and plain(key.value) not in ("searchspace", "classargs"), seen)
        if inner:
            return inner
    return None


def _nodes(file: Path) -> dict[str, yaml.Node]:
    """Top-level keys, as NNI compares them, to the nodes of their values."""
    root = _compose(file)
    return {plain(key.value): value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}


def _compose(file: Path, space: str = " ") -> yaml.Node | None:
    """JSON is YAML, but for its tabs: those files get no line, unless the tab counts as a space."""
    try:
        return yaml.compose(file.read_text("utf-8").replace(space, " "), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _entry(node: yaml.Node | None, name: str) -> yaml.Node | None:
    """The entry of a search space; of a nested choice ("model.layers") the outer one."""
    return _below(node, name) or _below(node, name.split(".")[0])


def _below(node: yaml.Node | None, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if plain(key.value) == plain(name)), None)


def _quoted(node: yaml.Node, text: str) -> yaml.Node | None:
    said = {plain(word) for word in re.findall(r"'([^']*)'", text)}
    return next((part for part in _parts(node) if isinstance(part.value, str) and plain(part.value) in said), None)


def _parts(node: yaml.Node):
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield from _parts(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _parts(value)


def _at(file: Path, node: yaml.Node | None) -> str:
    return f"{file}:{node.start_mark.line + 1}" if node is not None else str(file)


def resolved(file: Path, name: str) -> Path:
    """A file that an experiment file names, as NNI finds it."""
    return (file.parent / Path(name).expanduser()).resolve()


def shown(file: Path) -> Path:
    """Relative to the current folder where it lies below."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def plain(key: object) -> str:
    """A key as NNI compares its own."""
    return str(key).lower().replace("_", "")
