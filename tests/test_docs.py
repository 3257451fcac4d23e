"""What README.md, CONTRIBUTING.md and docs/ promise: commands, targets, paths, links, generated parts and the files' keys.

`make reference` (UPDATE_GOLDEN=1) writes the generated parts again: the tables of commands,
hyperparameters and Python names, and the demo's output.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, run_module
from fixtures_data import class_folders, write_tree
from fixtures_trial import run_trial_command
from test_numbers import SCENARIOS, in_home

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"))
}
HISTORY = re.compile(r"CHANGELOG|docs/log|docs/decisions|docs/report")  # names of their time; report.md is generated
CURRENT = {name: text for name, text in PAGES.items() if not HISTORY.match(name)}
PACKAGES = ("data", "trial", "experiments", "analysis")


# --- commands, make targets ---


def commands(text: str) -> list[str]:
    """Every command of the shell blocks, continuation lines joined, and every `python -m ...` in backticks."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [line.split("  #")[0].strip() for line in blocks.splitlines()]
    inline = re.findall(r"`(python -m [^`]+|make [a-z-]+[^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line for line in [*lines, *inline] if line and not line.startswith("#")]


COMMANDS = sorted({(name, command) for name, text in CURRENT.items() for command in commands(text)})


class Parsed(BaseException):
    """Ends a command when its arguments have been parsed."""


def is_taken(package: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the parser of `python -m PACKAGE` takes the words; SystemExit where it refuses them."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise Parsed(parse(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    with pytest.raises(Parsed):
        importlib.import_module(f"{package}.__main__").main(words)
    return True


def bare_parser_of(package: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of `python -m PACKAGE` itself."""

    def end(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise Parsed(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", end)
    with pytest.raises(Parsed) as caught:
        importlib.import_module(f"{package}.__main__").main(["--help"])  # with which each names its commands
    return caught.value.args[0]


def subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """{name: (its parser, its help)}; empty where there are none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (command, helps.get(name, "")) for name, command in action.choices.items()}
    return {}


@pytest.mark.parametrize(("page", "command"), [pair for pair in COMMANDS if "python -m" in pair[1]])
def test_a_command_is_one_that_its_parser_takes(page, command, monkeypatch):
    module, *words = shlex.split(command.split("python -m ", 1)[1])
    if module in PACKAGES and len(words) == 1:  # a command's name alone
        assert words[0] in subcommands(bare_parser_of(module, monkeypatch)), page
    elif module in (*PACKAGES, "benchmarks"):
        assert is_taken(module, words, monkeypatch)
    else:
        assert importlib.util.find_spec(module), f"{page}: {module}"


@pytest.mark.parametrize(("page", "command"), [pair for pair in COMMANDS if pair[1].startswith("make ")])
def test_a_make_target_exists(page, command):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for word in command.split()[1:] if "=" not in word} <= targets, page


def test_the_readme_is_short_and_begins_with_the_demo():
    readme = PAGES["README.md"]
    assert len(readme.splitlines()) <= 150
    assert commands(readme)[0] == "make demo"


# --- paths, links ---

# of the repository, and not those with a word in capitals for any name
PATH = re.compile(
    r"`((?:analysis|benchmarks|data|docs|experiments|search_spaces|tests|trial)/(?![\w.]*NAME)[\w./-]*|[\w-]+\.(?:yml|md|toml))`"
)
MADE = re.compile(r"data/(cache|my_cache|sample_\w+)|benchmarks/latest\.json")  # by commands, not in the repository


def test_named_paths_exist():
    named = {(page, path) for page, text in CURRENT.items() for path in PATH.findall(text) if not MADE.match(path)}
    places = [ROOT, *(ROOT / folder for folder in ("docs", "experiments", "search_spaces"))]
    missing = {(page, path) for page, path in named if not any((place / path).exists() for place in places)}
    assert not missing


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`]*`", "", PAGES[page], flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(file.read_text("utf-8")), f"{page}: {target}"


# --- generated parts ---


def check_generated(page: str, name: str, text: str) -> None:
    """Compare the part of a page between its two marks with `text`; with UPDATE_GOLDEN=1 write it there."""
    path = ROOT / page
    before, mark, rest = path.read_text("utf-8").partition(f"<!-- begin generated: {name} -->\n")
    assert mark, f"{page}: no part named {name}"
    known, mark, after = rest.partition("<!-- end generated -->\n")
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(f"{before}<!-- begin generated: {name} -->\n{text}{mark}{after}", "utf-8")
    else:
        assert known == text, f"{page}: {name} has changed; make reference writes it again"


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |\n"


def table(*titles: str) -> str:
    return row(*titles) + "|" + "---|" * len(titles) + "\n"


def arguments_of(parser: argparse.ArgumentParser, flags: bool) -> list[argparse.Action]:
    """Its flags, or its positional arguments."""
    actions = [a for a in parser._actions if not isinstance(a, (argparse._HelpAction, argparse._SubParsersAction))]
    return [action for action in actions if bool(action.option_strings) == flags]


def label_of(action: argparse.Action) -> str:
    """`--flag VALUE`, `NAME`, `[NAME]` where it may be absent, `NAME ...` where there may be several."""
    value = str(action.metavar or (",".join(map(str, action.choices)) if action.choices else action.dest.upper()))
    if action.option_strings:
        return action.option_strings[-1] if action.nargs == 0 else f"{action.option_strings[-1]} {value}"
    several = f"{value} ..." if action.nargs in ("+", "*") else value
    return f"[{several}]" if action.nargs in ("*", "?") else several


def meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def default_of(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if action.default in (None, "", [], argparse.SUPPRESS) or action.nargs == 0 or "default:" in (action.help or ""):
        return ""
    default = action.default
    inside = isinstance(default, Path) and default.is_relative_to(ROOT)
    return f"`{default.relative_to(ROOT) if inside else default}`"


def commands_section(package: str, parser: argparse.ArgumentParser, without: frozenset[str]) -> str:
    """A table of the commands with what they take, and one of all flags with the commands that they belong to."""
    commands = subcommands(parser)
    if not commands or any(action.option_strings for action in arguments_of(parser, flags=True)):
        commands = {"": (parser, parser.description or "")} | commands  # what it does without a command
    text, flags = table("command", "takes", "meaning"), {}
    for name, (command, what) in commands.items():
        takes = [(label_of(action), meaning(command, action)) for action in arguments_of(command, flags=False)]
        words = f"`{' '.join([name, *(word for word, _ in takes)])}`" if name else "(none)"
        text += row(words, "; ".join(help for _, help in takes if help), what)
        for action in arguments_of(command, flags=True):
            if action.dest not in without:
                cells = (f"`{label_of(action)}`", default_of(action), meaning(command, action))
                flags.setdefault(cells, []).append(name)
    if len(commands) == 1:
        rows = [row(*cells) for cells in flags]
        return f"### python -m {package}\n\n{table('flag', 'default', 'meaning')}{''.join(rows)}\n"
    rows = [row(flag, ", ".join(name or "(none)" for name in names), *rest) for (flag, *rest), names in flags.items()]
    return f"### python -m {package}\n\n{text}\n{table('flag', 'of', 'default', 'meaning')}{''.join(rows)}\n"


@pytest.fixture(scope="module")
def fields() -> dict[str, dict[str, Any]]:
    """The trial's fields as `--describe` names them."""
    done = run_module("trial", "--describe", "--cache", "/nowhere")
    return json.loads(done.stdout)["fields"]


def test_generated_commands(fields, monkeypatch):
    text = ""
    for package in PACKAGES:
        with monkeypatch.context() as patch:
            parser = bare_parser_of(package, patch)
        text += commands_section(package, parser, frozenset(fields) if package == "trial" else frozenset())
    check_generated("docs/reference.md", "commands", text)


def test_generated_hyperparameters(fields):
    text = table("field", "type", "default", "legal", "meaning")
    for name, field in fields.items():
        legal = ", ".join(f"`{choice}`" for choice in field.get("choices", ()))
        legal = legal or (f"{field['low']:g} to {field['high']:g}" if "low" in field else "")
        text += row(
            f"`{name}`", field["type"], f"`{field['default']}`" * (field["default"] != ""), legal, field["help"]
        )
    check_generated("docs/reference.md", "hyperparameters", text)


def test_generated_python_names():
    import analysis
    from analysis.experiment import Comparison, LoadedExperiment

    functions = [value for value in vars(analysis).values() if getattr(value, "__module__", "") == "analysis"]
    text = table("name", "returns") + "".join(row(f"`analysis.{f.__name__}()`", sentence(f)) for f in functions)
    members: dict[str, tuple[Any, list[str]]] = {}
    for kind, whose in ((LoadedExperiment, "experiment"), (Comparison, "comparison")):
        for name, value in [pair for base in reversed(kind.__mro__) for pair in vars(base).items()]:
            if not name.startswith("_") and sentence(value):
                members.setdefault(name, (value, []))[1].append(whose)
    rows = [
        row(f"`.{name}{'()' * callable(value)}`", ", ".join(of), sentence(value))
        for name, (value, of) in members.items()
    ]
    text += f"\n{table('name', 'of', 'meaning')}{''.join(rows)}"
    check_generated("docs/reference.md", "python", text)


def sentence(value: Any) -> str:
    """The first sentence of a docstring, in one line."""
    text = " ".join((value.__doc__ or "").split()) if isinstance(value, property) or hasattr(value, "__doc__") else ""
    return re.split(r"(?<=[^.])\. ", text)[0].removesuffix(".")


@pytest.fixture(scope="module")
def recorded_comparison(tmp_path_factory) -> tuple[str, Path]:
    """What `compare` prints of the recorded pair, and the folder that it writes."""
    from analysis.__main__ import main

    pair = [str(ROOT / "analysis" / "recorded" / name) for name in ("tpe", "evolution")]
    folder, output = tmp_path_factory.mktemp("recorded_comparison"), io.StringIO()
    with contextlib.redirect_stdout(output), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        assert main(["compare", *pair, "--out", str(folder)]) == 0
    return output.getvalue(), folder


def test_generated_demo_output(recorded_comparison):
    (verdict, statement), (_, *rows) = (part.splitlines() for part in recorded_comparison[0].split("\n\n")[:2])
    sentences = re.split(r"(?<=\.) (?=[A-Z])", statement)
    lines = textwrap.wrap(" ".join(sentences[:2]), 128)
    lines_kept = [verdict, *lines, "...", *rows[:4], "...", "report: runs/demo/report.html"]
    text = "\n".join(line.rstrip() for line in lines_kept)
    check_generated("README.md", "demo", f"```text\n{text}\n```\n")


# --- the keys of the files ---

REFERENCE = PAGES["docs/reference.md"]
SHARED = ("Provenance", "Measure", "Paired difference", "Equivalence", "Split score", "Comparison")
FILES = ("manifest.json", "result.json", "summary.json", "study.json", "confirm.json")
Key = tuple[str, ...]


def rows_of(section: str) -> list[tuple[Key, str | None, bool]]:
    """(path of the key, shared object that its value is, whether only some runs write it) of a section's table."""
    match = re.search(rf"^###+ {re.escape(section)}\n(.*?)(?=^#|\Z)", REFERENCE, re.DOTALL | re.MULTILINE)
    assert match, section
    keys = []
    for line in match[1].splitlines():
        if not line.startswith("| `"):
            continue
        names, kind, meaning = (cell.strip() for cell in line.strip("|").split(" | ", 2))
        link = re.search(r"\[[^]]*\]\(#([\w-]+)\)", kind)
        parent: Key = ()
        for name in re.findall(r"`([^`]+)`", names):
            key = (*parent, name[1:]) if name.startswith(".") else tuple(name.split("."))
            parent = key[:-1]
            keys.append((key, link and link[1], "*(some)*" in meaning))
    return keys


def keys_with_shared(section: str) -> dict[Key, tuple[Key, str]]:
    """{path of each key of a file: (the row's own path, its section)}, with the keys of shared objects."""
    shared = {name.lower().replace(" ", "-"): name for name in SHARED}
    paths = {}
    for key, link, _ in rows_of(section):
        paths[key] = (key, section)
        if link in shared:
            paths |= {(*key, *inner): origin for inner, origin in keys_with_shared(shared[link]).items()}
    return paths


def keys_of(value: Any, path: Key = ()) -> Iterator[Key]:
    """The path of every value that is no object and no list; lists end a name with [], as the reference writes them."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from keys_of(inner, (*path, name))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from keys_of(inner, (*path[:-1], path[-1] + "[]"))
    else:
        yield path


def fits(key: Key, pattern: Key) -> bool:
    """Whether a real path is a documented one: words in capitals stand for any name."""
    return len(key) == len(pattern) and all(
        one == other or (other.rstrip("[]").isupper() and one.count("[]") == other.count("[]"))
        for one, other in zip(key, pattern)
    )


def is_documented(key: Key, patterns: set[Key]) -> bool:
    """Itself, or, of what is null or empty, as an object or a list that has documented keys."""
    if any(fits(key, pattern) for pattern in patterns):
        return True
    return any(fits(bare(key), bare(pattern)[: len(key)]) for pattern in patterns)


def bare(key: Key) -> Key:
    return tuple(part.replace("[]", "") for part in key)


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_cache) -> Path:
    """A folder of real files: those of the scenarios of test_numbers.py, two trainings, a cache."""
    home = tmp_path_factory.mktemp("files")
    for name in ("repeats", "confirmation", "confirmation_in_stages", "early_stopping"):
        (home / name).mkdir()
        in_home(SCENARIOS[name], home / name)
    train_teacher_and_student(home, tiny_cache)
    prepare_cache(home)
    return home


@pytest.fixture(scope="module")
def real_files(home, recorded_comparison, tiny_cache) -> dict[str, list[Any]]:
    """{name: contents of all real files of that name}, with those of the repository."""
    roots = (home, recorded_comparison[1], ROOT / "analysis" / "recorded", ROOT / "docs" / "studies", tiny_cache)
    paths = {name: [path for root in roots for path in root.rglob(name)] for name in FILES}
    return {name: [json.loads(path.read_text("utf-8")) for path in files] for name, files in paths.items()}


def train_teacher_and_student(home: Path, cache: Path) -> None:
    """A teacher, and what learns from it."""
    flags = ("--cache", str(cache), "--weights", "none", "--image-px", "32", "--epochs", "1", "--threads", "1")
    distillation = ("--teacher", str(home / "teacher/best.pt"), "--distill-weight", "0.5")
    for name, own in (("teacher", ()), ("student", distillation)):
        assert run_trial_command(*flags, *own, "--output", str(home / name)).returncode == 0


def prepare_cache(home: Path) -> None:
    """A cache with all that only some have: divided class folders, a broken photo, one that is in two splits."""
    files = class_folders("pho", "bibimbap")
    copies = {f"pho/copy{n}.jpg": next(iter(files.values())) for n in range(12)}
    write_tree(home / "photos", files | copies | {"pho/broken.jpg": b"\xff\xd8\xff\xe0 broken"})
    words = ("prepare", str(home / "photos"), "--cache", str(home / "cache"), "--image-px", "24", "--split", "60,20,20")
    done = run_module("data", *words, "--skip-unreadable")
    assert done.returncode == 0, done.stderr


def test_the_guides_python_runs(monkeypatch, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGES["docs/guide.md"], re.DOTALL)
    (tmp_path / "analysis").symlink_to(ROOT / "analysis")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "guide.md", "exec"), {})
    assert {"best_so_far.html", "comparison.html"} <= {path.name for path in tmp_path.iterdir()}


def test_the_tutorials_python_runs(home, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGES["docs/tutorial.md"], re.DOTALL)
    monkeypatch.chdir(home / "teacher")  # beside its best.pt
    (home / "photos" / "bibimbap" / "0.jpg").rename("photo.jpg")
    exec(compile(code, "tutorial.md", "exec"), {})
    assert re.fullmatch(r"\D+ \d+%\n", capsys.readouterr().out)


@pytest.mark.parametrize("file", FILES)
def test_every_key_of_the_files_is_documented(file, real_files):
    assert real_files[file]
    patterns = set(keys_with_shared(file))
    unknown = {key for content in real_files[file] for key in keys_of(content) if not is_documented(key, patterns)}
    assert not unknown


def test_every_documented_key_exists(real_files):
    """In a real file; of what only some runs write, at least in the code."""
    patterns = {file: keys_with_shared(file) for file in FILES}
    real = {
        file: {bare(key) for content in real_files[file] for key in prefixes_of(keys_of(content))} for file in FILES
    }
    existing = {
        origin
        for file in FILES
        for pattern, origin in patterns[file].items()
        if any(fits(key, bare(pattern)) for key in real[file])
    }
    code = "\n".join(path.read_text("utf-8") for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    for section in (*FILES, *SHARED):
        for key, _, is_some in rows_of(section):
            name = key[-1].replace("[]", "")
            assert (key, section) in existing or (is_some and f'"{name}"' in code), f"{section}: {'.'.join(key)}"


def prefixes_of(keys: Iterator[Key]) -> Iterator[Key]:
    for key in keys:
        yield from (key[:n] for n in range(1, len(key) + 1))
