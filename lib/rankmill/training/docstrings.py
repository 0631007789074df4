"""Documents from the docstrings of installed packages whose licence allows it.

The sources are parsed, never imported. The standard library is refused, and so is any docstring whose opening also
occurs in the standard library: its documentation is the demo's test collection.
"""

import ast
import importlib.metadata
import inspect
import logging
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import InputError

log = logging.getLogger(__name__)

_PERMISSIVE = re.compile(r"\b(apache|mit|bsd|isc)\b", re.IGNORECASE)
_SKIPPED_PARTS = frozenset(
    {
        "tests",
        "test",
        "testing",
        "_vendor",
        "vendor",
        "vendored",
        "_vendored",
        "externals",
        "extern",
        "thirdparty_files",
        "_distutils",
    }
)


@dataclass(frozen=True, slots=True)
class Docstring:
    """One public class or function with its documentation."""

    name: str
    """Qualified name, such as `numpy.lib.npyio.load`."""
    text: str
    """The docstring, indentation cleaned."""
    parameters: tuple[str, ...] = ()


def licence(distribution: str) -> str:
    """What an installed distribution says about its licence, in one line; empty when it says nothing.

    Raises:
        InputError: the distribution is not installed.
    """
    try:
        metadata = importlib.metadata.metadata(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            f"The package {distribution!r} is not installed; leave it out of --packages or install it."
        ) from None
    said = [
        line.strip().split("\n")[0][:80]
        for key in ("License-Expression", "License")
        for line in metadata.get_all(key) or []
    ]
    said += [c.rpartition("::")[2].strip() for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    return "; ".join(part for part in said if part)


def harvest(distributions: Sequence[str], *, min_words: int = 12) -> list[Docstring]:
    """Docstrings of public classes and functions, in a fixed order.

    Args:
        distributions: names of installed distributions.
        min_words: shorter docstrings are left out.

    Raises:
        InputError: a distribution is missing, or its licence is not recognised as permissive; all culprits listed.
    """
    said = {name: licence(name) for name in distributions}
    refused = [
        f"{name}: {text or 'no licence in its metadata'}" for name, text in said.items() if not _PERMISSIVE.search(text)
    ]
    if refused:
        raise InputError("Docstrings are taken from permissively licensed packages only; leave these out.", refused)
    banned = _standard_library_openings()
    found: list[Docstring] = []
    seen: set[str] = set()
    for name in distributions:
        before = len(found)
        for path, module in _modules(name):
            for item in _documented(path, module):
                key = _opening(item.text)
                if len(item.text.split()) < min_words or key in banned or key in seen:
                    continue
                seen.add(key)
                found.append(item)
        log.info("%s (%s): %d docstrings", name, said[name], len(found) - before)
    return found


def _opening(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower())[:8])


def _modules(distribution: str) -> Iterator[tuple[Path, str]]:
    for file in sorted(importlib.metadata.files(distribution) or (), key=str):
        parts = file.parts
        if (
            file.suffix != ".py"
            or parts[0] == ".."
            or _SKIPPED_PARTS & set(parts)
            or any(p.startswith("test_") for p in parts)
        ):
            continue
        if parts[0] in sys.stdlib_module_names:
            continue
        yield Path(str(file.locate())), ".".join([*parts[:-1], *([file.stem] if file.stem != "__init__" else [])])


def _documented(path: Path, module: str) -> Iterator[Docstring]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError, FileNotFoundError):
        return  # templates and files for other interpreters: nothing to learn from, and not ours to report
    yield from _walk(tree.body, module)


def _walk(body: Iterable[ast.stmt], prefix: str) -> Iterator[Docstring]:
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        text = ast.get_docstring(node)
        if text:
            yield Docstring(name, inspect.cleandoc(text), _parameters(node))
        if isinstance(node, ast.ClassDef):
            yield from _walk(node.body, name)


def _parameters(node: ast.stmt) -> tuple[str, ...]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ()
    names = [argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]]
    return tuple(name for name in names if name not in {"self", "cls"} and len(name) > 2 and not name.startswith("_"))


def _standard_library_openings() -> set[str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    openings: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.parts):
            continue
        openings.update(_opening(item.text) for item in _documented(path, path.stem))
    openings.discard("")
    return openings
