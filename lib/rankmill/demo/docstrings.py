"""Walks the standard library of the running interpreter and prints its documentation as one JSON document.

This file is a program of its own: `corpus.py` starts it as `python -I -S -W ignore docstrings.py`. Importing some
300 modules is not something to do to a caller: modules print, warn that they are deprecated, install completion hooks
or open windows, and they would all stay in `sys.modules`. In a child, nothing of that can be seen; and docstrings exist
there even when the caller runs under `python -OO`. It therefore imports nothing outside the standard library.
"""

import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass

_SKIPPED_MODULES = {
    "antigravity": "opens a web browser",
    "this": "prints a poem",
    "idlelib": "an application, needs a display",
    "tkinter": "needs a display; missing from many builds, and the corpus should not depend on that",
    "turtle": "needs tkinter",
    "turtledemo": "needs tkinter",
    "test": "the interpreter's own tests",
    "ctypes.test": "tests",
    "distutils": "gone since Python 3.12; other packages install a replacement over it",
    "lib2to3": "gone since Python 3.13",
    "ensurepip": "carries pip, which is not the standard library",
    "pydoc_data": "one long table",
    "ctypes.macholib": "implementation",
    "multiprocessing.process": "documented as multiprocessing.Process",
    "posixpath": "documented as os.path",
    "ntpath": "documented as os.path",
    "genericpath": "documented as os.path",
    "nturl2path": "implementation",
    "xml.dom.expatbuilder": "implementation",
    "xml.sax.expatreader": "implementation",
    "posix": "documented as os",
    "nt": "documented as os",
}
_SKIPPED_SUBMODULES_OF = {
    "asyncio": "public names live in asyncio itself",
    "encodings": "a hundred codecs with the same five docstrings",
    "unittest.test": "tests",
    "sqlite3.test": "tests",
}
_GENERIC_INIT = "Initialize self.  See help(type(self)) for accurate signature."
_MIN_WORDS = 2
_EMPTY_WORDS = frozenset({"An enumeration."})  # what the enum module says when the author says nothing


@dataclass(frozen=True, slots=True)
class Entry:
    """One way to reach one documented object."""

    name: str
    """Public dotted name; objects of `builtins` have none of its prefix."""
    identity: int
    """`id` of the function, class, module or descriptor behind the name: aliases share it."""
    text: str
    alias: bool = False
    """Whether the class, or the class it belongs to, calls itself something else (`IOError` is `OSError`)."""
    inherited: bool = False
    """Whether the name goes through a subclass of the class that defines the object."""

    @property
    def preference(self) -> tuple[bool, int, bool, int, str]:
        """Sort key: first the object's own name in its own class, then few dots, a short name, the alphabet."""
        return (self.alias or self.inherited, self.name.count("."), self.alias, len(self.name), self.name)


def module_names() -> list[str]:
    """Names of the public modules to document, packages' submodules included, sorted. Imports packages."""
    names: list[str] = []
    pending = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
    while pending:
        name = pending.pop()
        if name in _SKIPPED_MODULES:
            continue
        names.append(name)
        package = import_quietly(name)
        if package is None or not hasattr(package, "__path__") or name in _SKIPPED_SUBMODULES_OF:
            continue
        pending.extend(
            f"{name}.{info.name}"
            for info in pkgutil.iter_modules(package.__path__)
            if not info.name.startswith("_") and info.name not in {"test", "tests"}
        )
    return sorted({*names, "os.path"})


def import_quietly(name: str) -> types.ModuleType | None:
    """The module, or None where this platform or build lacks it (`winreg` on Linux) or it refuses to load."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return importlib.import_module(name)
        except Exception:  # noqa: BLE001 - whatever a module raises, it is not available here, which is all we ask
            return None


def entries(module_name: str, module: types.ModuleType) -> Iterator[Entry]:
    """Every documented public object that `module` offers: itself, functions, classes and their members."""
    if text := document_of(module):
        yield Entry(module_name, id(module), text)
    prefix = "" if module_name == "builtins" else f"{module_name}."
    for name in public_names(module_name, module):
        try:
            value = getattr(module, name)
        except AttributeError:  # listed in __all__ but absent on this platform
            continue
        if isinstance(value, types.ModuleType | types.GenericAlias):  # `dict[str, int]` answers with dict's docstring
            continue
        alias = inspect.isclass(value) and value.__name__ != name
        if text := document_of(value):
            yield Entry(prefix + name, identity_of(value), text, alias=alias)
        if inspect.isclass(value):
            yield from class_entries(prefix + name, value, alias=alias)


def public_names(module_name: str, module: types.ModuleType) -> list[str]:
    """`__all__` where there is one; else the names without underscore whose objects belong to this module."""
    declared = getattr(module, "__all__", None)
    if declared is not None:
        return sorted({name for name in declared if not name.startswith("_")})
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and belongs(getattr(value, "__module__", None), module_name)
    )


def belongs(origin: str | None, module_name: str) -> bool:
    """Whether an object made in module `origin` is at home in `module_name`: the same, a part, or a C core of it."""
    if module_name == "builtins":
        return True
    if not isinstance(origin, str):
        return False
    return (
        origin == module_name
        or origin.startswith((f"{module_name}.", "_"))
        or (origin in {"posix", "nt"} and module_name == "os")
    )


def class_entries(class_name: str, cls: type, *, alias: bool) -> Iterator[Entry]:
    """Documented public methods, properties and attributes of a class, inherited ones marked."""
    seen: set[str] = set()
    for owner in cls.__mro__:
        for name, value in vars(owner).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if inspect.isclass(value) or not is_member(value):
                continue
            if text := document_of(value):
                yield Entry(f"{class_name}.{name}", identity_of(value), text, alias, inherited=owner is not cls)


def is_member(value: object) -> bool:
    """Methods, class methods, static methods, properties, attributes of C types."""
    return (
        inspect.isroutine(value)
        or isinstance(value, classmethod | staticmethod | property)
        or inspect.isdatadescriptor(value)
        or hasattr(value, "func")  # functools.cached_property and its kin keep the docstring of what they wrap
    )


def identity_of(value: object) -> int:
    """`id` of the function behind bound methods, class methods and static methods; else of the value."""
    inner = getattr(value, "__func__", None)
    if inner is not None:
        return id(inner)
    owner = getattr(value, "__self__", None)
    if inspect.isbuiltin(value) and owner is not None and not isinstance(owner, types.ModuleType):
        # A bound C method, such as random.random: `Random().random` makes a new object at every access.
        return id(getattr(type(owner), value.__name__, value))
    return id(value)


def document_of(value: object) -> str:
    """The object's own docstring, cleaned; empty where there is none worth reading."""
    doc = vars(value).get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    if not isinstance(doc, str) or (not inspect.isclass(value) and doc == getattr(type(value), "__doc__", None)):
        doc = ""  # constants answer with the docstring of their type
    text = clean(doc)
    if inspect.isclass(value):
        init = clean(getattr(vars(value).get("__init__"), "__doc__", None) or "")
        text = "\n\n".join(part for part in (text, init) if part and part != _GENERIC_INIT)
    if len(text.split()) < _MIN_WORDS or text in _EMPTY_WORDS or text.startswith("Alias for field number"):
        return ""
    return text


def clean(doc: object) -> str:
    """`inspect.cleandoc`, without trailing blanks; what UTF-8 cannot carry is replaced."""
    if not isinstance(doc, str):
        return ""
    text = "\n".join(line.rstrip() for line in inspect.cleandoc(doc).splitlines()).strip()
    return text.encode("utf-8", "replace").decode("utf-8")


def documents() -> list[tuple[str, str]]:
    """(name, text) of every documented public object, one per object, sorted by name.

    Two rules of "one per object": aliases keep the preferred name, and overriding methods that repeat the docstring of
    another method of the same name are dropped in favour of the preferred name.
    """
    loaded = [(name, import_quietly(name)) for name in module_names()]
    found = [entry for name, module in loaded if module is not None for entry in entries(name, module)]
    found.sort(key=lambda entry: entry.preference)
    identities: set[int] = set()
    repeated: set[tuple[str, str]] = set()
    kept: dict[str, str] = {}
    for entry in found:
        same = (entry.name.rpartition(".")[2], entry.text)
        if entry.identity in identities or same in repeated or entry.name in kept:
            continue
        identities.add(entry.identity)
        repeated.add(same)
        kept[entry.name] = entry.text
    return sorted(kept.items())


if __name__ == "__main__":
    json.dump(documents(), sys.stdout)
