"""A weights file, read without running any code of it. What is no such file is named by what it is."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import warnings
import zipfile
from pathlib import Path, PurePath
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from trial.errors import TrialError

ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
HEAD = 4096  # bytes that tell what a file is
TORCH_1 = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # in the head of torch's format before 1.6
REFUSED = "not a state-dict file that loads safely"
SAVE = "Where it was made, save the weights alone: torch.save(model.state_dict(), FILE)"
DAMAGED = "cut short or damaged ({size:,} bytes): copy or download it again"

# What other files begin with, and what they are.
MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write it; expected PyTorch's weights"),
    (b"\x93NUMPY", "a NumPy array; expected a state dict of torch.save"),
    (b"GGUF", "a GGUF file of a language model"),
    (b"%PDF", "a PDF document"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"BZh", "compressed with bzip2: unpack it (bunzip2, or tar xf) and name the file in it"),
    (b"\xfd7zXZ\0", "compressed with xz: unpack it (unxz, or tar xf) and name the file in it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it (unzstd) and name the file in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and name the file in it"),
    (b"Rar!", "a RAR archive: unpack it and name the file in it"),
)

# What checkpoints hold beside the weights; none of it is needed.
BESIDE = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "argparse.Namespace", "types.SimpleNamespace"),
    *(f"pathlib.{module}{name}" for module in ("", "_local.") for name in ("PosixPath", "WindowsPath")),
)


class Nothing:
    """In the place of such an object, so that no code but this is run for it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def load_path(path: Path, source: str) -> Any:
    """`load_file` of the file there. Raises TrialError."""
    try:
        with path.open("rb") as file:
            return load_file(file, path.name, source)
    except OSError as error:
        raise TrialError(f"{source}: cannot be read ({error.strerror or error})") from error


def load_file(file: IO[bytes], name: str, source: str) -> Any:
    """Whatever torch.save or safetensors wrote, its tensors on the CPU.

    file: opened for reading; name: its name; source: begins the message. Raises TrialError.
    """
    try:
        head = file.read(HEAD)
        if kind := _text_kind(head) or _binary_kind(head, file, name):
            raise TrialError(f"{source}: {REFUSED}: {kind}")
        file.seek(0)
        if _is_safetensors(head):
            return load_safetensors(file.read())
        return _load_pickled(file)
    except (TrialError, OSError):
        raise
    except Exception as error:
        size = file.seek(0, io.SEEK_END)
        raise TrialError(f"{source}: {REFUSED}: {_refusal(error, size)}") from error


def _load_pickled(file: IO[bytes]) -> Any:
    """In torch's zip or its older format. Raises anything."""
    with warnings.catch_warnings(), torch.serialization.safe_globals([(Nothing, path) for path in BESIDE]):
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_safetensors(head: bytes) -> bool:
    """The length of a JSON header, 8 bytes, and its first brace: https://github.com/huggingface/safetensors#format"""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _text_kind(head: bytes) -> str | None:
    """What a file of text is; None for any other."""
    if not head.strip():
        return "an empty file: copy or download it again"
    text = head.decode("utf-8-sig", errors="replace").strip()
    strange = sum(letter == "\ufffd" or (ord(letter) < 32 and not letter.isspace()) for letter in text)
    if "\0" in text or 10 * strange > len(text):
        return None
    start, begins = text[:256].lower(), _printable(text)
    if start.startswith("version https://git-lfs"):
        return "a Git LFS pointer in place of the file: fetch it where it was cloned (git lfs install; git lfs pull)"
    if re.match(
        r"(<\?xml[^>]*>|<!--.*?-->|\s)*(<!doctype html|<html|<head|<body|<script|<meta|<title)", start, re.DOTALL
    ):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        named = f" ({_printable(title[1])!r})" if title and title[1].strip() else ""
        return f"a web page{named} saved in place of the file: download it again, by the address of the file itself"
    if text[0] in "{[<":
        kind = "an XML" if text[0] == "<" else "a JSON"
        return f"{kind} text in place of weights, it begins with {begins}: download the file itself"
    return f"a text, no weights; it begins with {begins}"


def _printable(text: str) -> str:
    """Its first 60 characters, on one line, none of which drives a terminal."""
    line = " ".join(text.split())
    return "".join(letter for letter in line if letter.isprintable())[:60]


def _binary_kind(head: bytes, file: IO[bytes], name: str) -> str | None:
    """What else it is; None for what torch or safetensors may have written."""
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"\x1f\x8b"):
        return _gzip_kind(file)
    if head[257:262] == b"ustar":
        return _tar_kind(file)
    if head.startswith(b"PK"):
        return _zip_kind(file)
    if head[4:8] == b"TFL3" or PurePath(name).suffix == ".pb":
        return "a TensorFlow model; expected PyTorch's weights"
    if re.match(rb"\x08[\x01-\x20]\x12", head) or PurePath(name).suffix == ".onnx":
        return f"an ONNX model; expected a state dict. {SAVE}"
    if head.startswith(b"\x80") and TORCH_1 not in head[:64] and not _is_safetensors(head):
        return f"pickled by Python itself, not by torch.save. {SAVE}"
    if not (head.startswith(b"\x80") or _is_safetensors(head)):
        wanted = "safetensors" if PurePath(name).suffix == ".safetensors" else "torch.save"
        return f"it begins with {head[:8]!r}, as no file of {wanted} does; {DAMAGED.format(size=_size(file))}"
    return None


def _size(file: IO[bytes]) -> int:
    return file.seek(0, io.SEEK_END)


def _gzip_kind(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        head = gzip.GzipFile(fileobj=file).read(HEAD)
    except (OSError, EOFError):
        return DAMAGED.format(size=_size(file))
    if kind := _text_kind(head):
        return f"{kind} (it is compressed with gzip)"
    unpack = "tar xzf" if head[257:262] == b"ustar" else "gunzip, with the ending .gz"
    return f"compressed with gzip: unpack it ({unpack}) and name the file in it"


def _tar_kind(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file) as archive:
            names = archive.getnames()
    except tarfile.TarError:
        return DAMAGED.format(size=_size(file))
    if {"storages", "tensors", "pickle"} <= set(names):
        return f"in torch's format of 2016, which is not read safely. {SAVE}"
    return f"a tar archive: unpack it (tar xf) and name {_inside(names)}"


def _zip_kind(file: IO[bytes]) -> str | None:
    try:
        names = zipfile.ZipFile(file).namelist()
    except zipfile.BadZipFile:
        return DAMAGED.format(size=_size(file))
    parts = {name.split("/", 1)[-1] for name in names}
    if "constants.pkl" in parts:
        return f"a TorchScript archive, a program together with its weights; expected a state dict. {SAVE}"
    if "archive_format" in parts or any(name.endswith(".pt2") for name in names):
        return f"a program that torch.export wrote; expected a state dict. {SAVE}"
    if "data.pkl" in parts:
        return None
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive; expected a state dict of torch.save"
    if any(name.endswith(".h5") for name in names):
        return "a Keras model; expected PyTorch's weights"
    return f"a zip archive: unpack it (unzip) and name {_inside(names)}"


def _inside(names: list[str]) -> str:
    weights = [name for name in names if name.endswith(ENDINGS)]
    return (
        _printable(weights[0])
        if weights
        else f"a file of weights; it holds {_printable(', '.join(names[:3])) or 'nothing'}"
    )


def _refusal(error: Exception, size: int) -> str:
    """torch's or safetensors' message in our words: theirs advises to run the file's code."""
    text = str(error)
    if unsafe := re.search(r"GLOBAL:? ([\w.]+\w)\b(?!\.)", text):
        return f"{_object_kind(unsafe[1])}, which only running code of the file could read. {SAVE}"
    if "operand" in text:
        return f"pickled with a newer protocol than torch's own, which is not read safely. {SAVE}"
    if isinstance(error, (SafetensorError, EOFError)) or re.search(
        r"EOF|corrupt|Reader|zip|GLOBAL|wrong byte size|out of input|index|underflow|truncated", text
    ):
        return DAMAGED.format(size=size)
    return f"{type(error).__name__}. {SAVE}"


def _object_kind(path: str) -> str:
    module = path.rpartition(".")[0]
    if not module:
        return f"it holds pickled code ({path})"
    if re.match(r"(torch\.nn|torchvision|timm|__main__|models?)\b", module):
        return f"a whole model was pickled ({path})"
    return f"it holds a pickled {path} beside the weights"
