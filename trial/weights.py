"""A weights file, read without running any code of it; and the one network's weights in it, under torchvision's names.

Any other file is refused, with what it is.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import IO, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from trial import TrialError

ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_HEAD = 4096  # bytes at the beginning, enough to recognise a file
_TORCH_1 = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # in the head of torch's format before 1.6
_REFUSED = "not a state-dict file that loads safely"
_SAVE = "Where it was made, save the weights alone: torch.save(model.state_dict(), FILE)"
_DAMAGED = "cut short or damaged ({size:,} bytes): copy or download it again"

# What other files begin with, and what they are.
_MAGIC = (
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
_BESIDE = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "argparse.Namespace", "types.SimpleNamespace"),
    *(f"pathlib.{module}{name}" for module in ("", "_local.") for name in ("PosixPath", "WindowsPath")),
)


class _Nothing:
    """Takes the place of such an object, so that no code but this is run for it."""

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
        head = file.read(_HEAD)
        if kind := _text_kind(head) or _binary_kind(head, file, name):
            raise TrialError(f"{source}: {_REFUSED}: {kind}")
        file.seek(0)
        if _is_safetensors(head):
            return load_safetensors(file.read())
        return _load_pickled(file)
    except (TrialError, OSError):
        raise
    except Exception as error:
        size = file.seek(0, io.SEEK_END)
        raise TrialError(f"{source}: {_REFUSED}: {_refusal(error, size)}") from error


def _load_pickled(file: IO[bytes]) -> Any:
    """In torch's zip or its older format. Raises anything."""
    with warnings.catch_warnings(), torch.serialization.safe_globals([(_Nothing, path) for path in _BESIDE]):
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
    """Its first 60 characters, on one line, without control characters."""
    line = " ".join(text.split())
    return "".join(letter for letter in line if letter.isprintable())[:60]


def _binary_kind(head: bytes, file: IO[bytes], name: str) -> str | None:
    """What else it is; None for what torch or safetensors may have written."""
    for magic, kind in _MAGIC:
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
        return f"an ONNX model; expected a state dict. {_SAVE}"
    if head.startswith(b"\x80") and _TORCH_1 not in head[:64] and not _is_safetensors(head):
        return f"pickled by Python itself, not by torch.save. {_SAVE}"
    if not (head.startswith(b"\x80") or _is_safetensors(head)):
        wanted = "safetensors" if PurePath(name).suffix == ".safetensors" else "torch.save"
        return f"it begins with {head[:8]!r}, as no file of {wanted} does; {_DAMAGED.format(size=_size(file))}"
    return None


def _size(file: IO[bytes]) -> int:
    return file.seek(0, io.SEEK_END)


def _gzip_kind(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        head = gzip.GzipFile(fileobj=file).read(_HEAD)
    except (OSError, EOFError):
        return _DAMAGED.format(size=_size(file))
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
        return _DAMAGED.format(size=_size(file))
    if {"storages", "tensors", "pickle"} <= set(names):
        return f"in torch's format of 2016, which is not read safely. {_SAVE}"
    return f"a tar archive: unpack it (tar xf) and name {_inside(names)}"


def _zip_kind(file: IO[bytes]) -> str | None:
    try:
        names = zipfile.ZipFile(file).namelist()
    except zipfile.BadZipFile:
        return _DAMAGED.format(size=_size(file))
    parts = {name.split("/", 1)[-1] for name in names}
    if "constants.pkl" in parts:
        return f"a TorchScript archive, a program together with its weights; expected a state dict. {_SAVE}"
    if "archive_format" in parts or any(name.endswith(".pt2") for name in names):
        return f"a program that torch.export wrote; expected a state dict. {_SAVE}"
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
    """torch's or safetensors' message in other words: theirs advises to run the file's code."""
    text = str(error)
    if unsafe := re.search(r"GLOBAL:? ([\w.]+\w)\b(?!\.)", text):
        return f"{_object_kind(unsafe[1])}, which only running code of the file could read. {_SAVE}"
    if "operand" in text:
        return f"pickled with a newer protocol than torch's own, which is not read safely. {_SAVE}"
    if isinstance(error, (SafetensorError, EOFError)) or re.search(
        r"EOF|corrupt|Reader|zip|GLOBAL|wrong byte size|out of input|index|underflow|truncated", text
    ):
        return _DAMAGED.format(size=size)
    return f"{type(error).__name__}. {_SAVE}"


def _object_kind(path: str) -> str:
    module = path.rpartition(".")[0]
    if not module:
        return f"it holds pickled code ({path})"
    if re.match(r"(torch\.nn|torchvision|timm|__main__|models?)\b", module):
        return f"a whole model was pickled ({path})"
    return f"it holds a pickled {path} beside the weights"


# -- the weights in what was loaded --------------------------------------------------------------------------------------

# Where training scripts keep the weights (a trial's best.pt: "model"); an average of them only where there is nothing else.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights", "params")
_AVERAGES = ("model_ema", "state_dict_ema", "ema", "ema_state_dict")

# Put into the names by torch.compile, FSDP and activation checkpointing, wherever a module was wrapped.
_INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

# In torchvision's older files: DenseNet's before 0.3, the vision transformer's before 0.12.
_RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)

# One of several networks in a file (MoCo, BYOL, DINO) that follows another.
_FOLLOWERS = re.compile(r"encoder_k|momentum|target|teacher|ema")

# Blocks of the four stages, and whether they are bottlenecks.
_RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
_OTHERS = (
    (r"embedder\.embedder\.convolution", "a ResNet with the names of Hugging Face's transformers"),
    (r"(cls_token|class_token|pos_embed|patch_embed)", "a vision transformer"),
    (r"(denseblock|denselayer)", "a DenseNet"),
    (r"features\.\d+\.(\d+|conv)\.", "a MobileNet, EfficientNet or ConvNeXt"),
    (r"(blocks|stages)\.\d+\.", "an EfficientNet or ConvNeXt with timm's names"),
    (r"features\.\d+\.squeeze\.", "a SqueezeNet"),
    (r"features\.\d+\.(weight|bias)$", "a VGG or AlexNet"),
    (r"(Mixed_|inception)", "an Inception network"),
    (r"^conv1\.0\.weight$", "a ResNet with a deeper stem (resnet18d, resnet50d)"),
)
_ANCHORS = ("layer1.0.conv1.weight", "conv1.weight")


class _StateDict(NamedTuple):
    """Names as torchvision's, values float32 where they are floats; notes: what was done, for the log."""

    values: dict[str, Tensor]
    notes: list[str]


def state_of(content: Any, source: str) -> _StateDict:
    """The one network's weights in whatever was loaded. Counters of batches, which files from before torch 0.4.1 lack, are 0.

    source: begins the message. Raises TrialError where there are no weights, or those of several networks.
    """
    where, state = _unwrap(content, source)
    values = {_current_name(name): value.detach() for name, value in state.items()}
    prefix = _prefix(values, source)
    others = [name for name in values if not name.startswith(prefix)]
    values = {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    for name in [name for name in values if name.endswith("running_var")]:
        counter = name.removesuffix("running_var") + "num_batches_tracked"
        if counter not in values or values[counter].is_floating_point():  # some halve it with the rest, to infinity
            values[counter] = torch.tensor(0)
    ours = where == ["model"] and {"classes", "hyperparameters"} <= set(content)
    notes = [f"taken from its {'.'.join(where)}"] if where and not ours else []
    notes += [f"the prefix {prefix} taken off the names"] if prefix else []
    notes += [f"{few(others)} left out"] if others else []
    return _StateDict(values, notes)


def _current_name(name: str) -> str:
    """The name that today's torchvision has for it, outside of any wrapper."""
    for part in _INSERTED:
        name = name.replace(part, "")
    for pattern, current in _RENAMED:
        name = pattern.sub(current, name)
    return name


def _unwrap(content: Any, source: str) -> tuple[list[str], dict[str, Tensor]]:
    """The keys that lead to a dict of tensors, and that; what else it holds is not of the network."""
    where = []
    while isinstance(content, dict):
        pairs = [(name, value) for name, value in content.items() if isinstance(name, str)]
        inner = [name for name, value in pairs if isinstance(value, dict) and _holds_tensors(value)]
        wrapper = next((name for name in (*_WRAPPERS, *_AVERAGES) if name in inner), None)
        tensors = {name: value for name, value in pairs if isinstance(value, Tensor)}
        if tensors and wrapper is None:
            return where, tensors
        if not inner:
            break
        where.append(wrapper or _one_of(inner, source))
        content = content[where[-1]]
    raise TrialError(f"{source}: expected a state dict (names to tensors), found {_describe(content)}")


def _holds_tensors(content: dict) -> bool:
    """In it or in a wrapper in it; an optimizer's state counts its tensors by number."""
    return any(
        isinstance(name, str) and (isinstance(value, Tensor) or (isinstance(value, dict) and _holds_tensors(value)))
        for name, value in content.items()
    )


def _one_of(networks: list[str], source: str) -> str:
    """The only one, or the only one that follows no other. Raises TrialError."""
    leading = [name for name in networks if not _FOLLOWERS.search(name)]
    if len(networks) == 1 or len(leading) == 1:
        return (leading or networks)[0]
    raise TrialError(
        f"{source}: it holds several networks ({few(networks)}): save the one that is meant to a file of its own"
    )


def _describe(content: Any) -> str:
    if not isinstance(content, dict):
        return type(content).__name__
    if {"state", "param_groups"} <= set(content):
        return "an optimizer's state alone"
    return f"{', '.join(map(repr, list(content)[:4]))} without tensors" if content else "an empty dict"


def _prefix(names: Iterable[str], source: str) -> str:
    """The prefix of all names of the one ResNet in it, or else of all names."""
    last, first = _ANCHORS
    prefixes = {name.removesuffix(last) for name in names if f".{name}".endswith(f".{last}")}
    prefixes = {prefix for prefix in prefixes if prefix + first in names}
    if prefixes:
        return _one_of(sorted(prefixes), source)
    shared = os.path.commonprefix(list(names)).rpartition(".")
    return "" if re.match(r"(conv|bn|layer|fc|features|blocks|stages)", shared[0] or "conv") else shared[0] + "."


def kind_of(state: dict[str, Tensor]) -> str:
    """The network that these belong to: torchvision's name where it is a ResNet; "" where nothing is known."""
    if other := next((kind for pattern, kind in _OTHERS if any(re.search(pattern, name) for name in state)), ""):
        return other
    if "layer1.0.conv1.weight" not in state:
        return ""
    stages = tuple(len({name.split(".")[1] for name in state if name.startswith(f"layer{i}.")}) for i in range(1, 5))
    kind = _RESNETS.get((stages, "layer1.0.conv3.weight" in state), "a ResNet")
    if state["layer1.0.conv1.weight"].shape[0] != 64:
        return f"a wide or grouped {kind.removeprefix('a ')}"
    return kind


def with_article(kind: str) -> str:
    return kind if kind.startswith("a") else f"a {kind}"


def few(names: list[str], count: int = 3, between: str = ", ") -> str:
    """The first of them, and how many more there are, without control characters."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    text = between.join(names[:count]) + more
    return "".join(letter for letter in text if letter.isprintable()) or "none"
