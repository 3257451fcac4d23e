"""Many paths in little memory: of millions of photos the list would else weigh more than everything that decodes them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload


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
