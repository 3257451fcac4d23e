"""Names: many paths in little memory, and what a terminal and a person make of a name."""

from __future__ import annotations

import re
import sys
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from typing import overload

_JOINERS = "\u200c\u200d"  # without a shape too, but part of Persian and Indic words and of emoji


def parts_of(path: str) -> tuple[str, ...]:
    """The folders and the name. Not pathlib's: Python would keep each of many names in a table of its own."""
    return tuple(part for part in path.split("/") if part not in ("", ".", ".."))


def printable(text: str) -> str:
    """One line: what has no shape, turns the direction of writing or is no text at all is escaped."""
    return "".join(c.encode("unicode_escape").decode() if _is_shapeless(c) else c for c in text)


def class_name(folders: Iterable[str]) -> str:
    """The printable name of the class that these folders hold, in composed characters (NFC): the first of them that needs
    no escape, or the first."""
    names = [printable(unicodedata.normalize("NFC", folder).strip()) or ascii(folder) for folder in folders]
    return min(names, key=lambda name: "\\" in name)


def class_key(folder: str) -> str:
    """Equal for folders that a person takes for the same class: Unicode form, case, width, spaces, `_` and characters
    without a shape aside."""
    text = "".join(c for c in folder if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(re.split(r"[\s_\x00-\x1f\x7f]+", text)).strip() or folder


def show_any_name() -> None:
    """From here on no name makes printing fail: what the terminal or the log has no character for is escaped."""
    for stream in (sys.stdout, sys.stderr):
        stream = getattr(stream, "file", stream)  # NNI's wrapper around a trial's log
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def columns_of(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )


def padded(text: str, columns: int) -> str:
    """`text` and spaces up to so many columns on a terminal."""
    return text + " " * (columns - columns_of(text))


def _is_shapeless(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") and character not in _JOINERS


class Names(Sequence[str]):
    """An unchanging list of strings: their bytes and 8 more each, where a list of `str` takes 60 to 120 more each."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        text, self._ends = bytearray(), array("Q", [0])
        for name in names:
            text += name.encode("utf-8", "surrogateescape")
            self._ends.append(len(text))
        self._text = bytes(text)

    @classmethod
    def unpacked(cls, text: bytes, ends: array) -> Names:
        """From what `packed` returned."""
        names = cls()
        names._text, names._ends = text, ends
        return names

    def packed(self) -> tuple[bytes, array]:
        """All names in one, and where each begins; the last number is where the last one ends."""
        return self._text, self._ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self._text[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogateescape")


class Photos(Sequence[tuple[str, int]]):
    """An unchanging list of (path in the source, class id) pairs."""

    def __init__(self, pairs: Iterable[tuple[str, int]] = ()) -> None:
        self.class_ids = array("q")
        self.paths = Names(self._split(pairs))

    def _split(self, pairs: Iterable[tuple[str, int]]) -> Iterable[str]:
        for path, class_id in pairs:
            self.class_ids.append(class_id)
            yield path

    def __len__(self) -> int:
        return len(self.class_ids)

    @overload
    def __getitem__(self, index: int) -> tuple[str, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, int]]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(zip(self.paths[index], self.class_ids[index], strict=True))
        return self.paths[index], self.class_ids[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented
