"""What lies among photos and is none, by its name: hidden and system files, and what people keep beside photos."""

from __future__ import annotations

import re

from data.names import parts_of

ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tzst|gz|bz2|xz|zst|rar|7z)(\.\d{3})?$|\.z\d\d$|\.r\d\d$", re.IGNORECASE)

# What systems and archivers leave behind; also everything whose name begins with a dot.
_SYSTEM = re.compile(
    r"thumbs\.db|ehthumbs(_vista)?\.db|iconcache\.db|desktop\.ini|icon\r|autorun\.inf|__macosx|__pycache__|lost\+found|"
    r"lost\.dir|found\.\d{3}|\$recycle\.bin|\$extend|system volume information|network trash folder|temporary items|"
    r"@eadir|@recycle|@recently-snapshot|#recycle|#snapshot",
    re.IGNORECASE,
)
# What people keep beside photos, by its ending. Any other file should be a photo, whatever its ending.
_OTHER = re.compile(
    r"(readme|licen[sc]e|copying|changelog|authors|makefile|(md5|sha1|sha256)sums)|.*\.(txt|md|rst|rtf|pdf|docx?|odt|xlsx?|ods|"
    r"pptx?|html?|mht|css|js|csv|tsv|jsonl?|ndjson|xml|ya?ml|toml|ini|cfg|conf|log|lock|sql|sqlite3?|db|mat|np[yz]|pkl|"
    r"pickle|h5|hdf5|parquet|feather|arrow|tfrecord|lmdb|mdb|rec|idx|names|data|pt|pth|onnx|safetensors|ckpt|pyc?|ipynb|r|m|c|"
    r"cpp|h|java|sh|bat|cmd|ps1|exe|dll|msi|apk|dmg|iso|lnk|url|webloc|torrent|crdownload|part|partial|download|tmp|bak|swp|"
    r"aae|xmp|thm|lrv|srt|vtt|ass|svg|mp4|m4v|mov|avi|mkv|webm|wmv|flv|mpe?g|3gp|m2?ts|mp3|m4a|wav|ogg|flac|aac|md5|sha1|"
    r"sha256|sfv|sig|asc|bib|tex|license)",
    re.IGNORECASE | re.DOTALL,
)


def hidden_part(name: str) -> str | None:
    """The path down to its first hidden or system part; a folder's has a slash."""
    parts = parts_of(name)
    for i, part in enumerate(parts, 1):
        if part.startswith(".") or _SYSTEM.fullmatch(part):
            return "/".join(parts[:i]) + ("/" if i < len(parts) or name.endswith("/") else "")
    return None


def is_other(name: str) -> bool:
    """Whether a file is no photo by its name."""
    name = name.rpartition("/")[2]
    return bool(_OTHER.fullmatch(name) or ARCHIVE.search(name))
