"""Which copy of rankmill a process runs, and the refusal to run more than one of them."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import UsageError

_FIX = (
    "Make every process import the same copy: submit with `ray job submit --working-dir . --runtime-env "
    "jobs/runtime_env.yaml -- ...` (it sets PYTHONPATH=lib, as cluster.yaml does in its start commands), "
    "or install the matching wheel on every node."
)


@dataclass(frozen=True, slots=True)
class SourceTree:
    """One copy of this package's source, as a process would import it."""

    path: str
    """The package's folder; empty if the package cannot be imported there."""
    version: str
    digest: str
    """SHA-256 over the names and contents of its `.py` files."""

    def same_code(self, other: "SourceTree") -> bool:
        """Whether both copies hold the same code; where they lie does not matter."""
        return (self.version, self.digest) == (other.version, other.digest)

    def __str__(self) -> str:
        if not self.path:
            return "no rankmill at all"
        return f"rankmill {self.version} (source {self.digest[:8]}) from {self.path}"


def refuse_stale(driver: SourceTree, workers: Mapping[str, SourceTree], working_tree: SourceTree | None) -> None:
    """Refuse to run a mixture of copies, or another copy than the one that came with the script.

    Args:
        driver: what this process imported.
        workers: what each node would import, by node address.
        working_tree: the copy that came with the script, if there is one.

    Raises:
        UsageError: naming both copies and the fix.
    """
    if working_tree is not None and not working_tree.same_code(driver):
        raise UsageError(f"This process runs {driver}, but the script came with {working_tree}. {_FIX}")
    stale = {node: source for node, source in workers.items() if not source.same_code(driver)}
    if stale:
        node, source = next(iter(stale.items()))
        others = f" ({len(stale)} of {len(workers)} nodes differ)" if len(workers) > 1 else ""
        raise UsageError(f"The driver runs {driver}, but node {node} would run {source}{others}. {_FIX}")


def source_reader() -> Callable[[str | None], tuple[str, str, str]]:
    """The function that reads a `SourceTree`: from a package folder, or with None as this process imports rankmill.

    Nested on purpose: a nested function travels to workers by value, so that it also runs where rankmill is older than
    this module, or missing. For the same reason it returns plain strings and names nothing outside itself.
    """

    def read_source(folder: str | None) -> tuple[str, str, str]:
        import hashlib  # noqa: PLC0415
        import importlib.util  # noqa: PLC0415
        import pathlib  # noqa: PLC0415
        import re  # noqa: PLC0415

        if folder is None:
            spec = importlib.util.find_spec("rankmill")
            if spec is None or not spec.submodule_search_locations:
                return "", "", ""
            folder = next(iter(spec.submodule_search_locations))
        root = pathlib.Path(folder).resolve()
        digest = hashlib.sha256()
        for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
            digest.update(content)
        init = root / "__init__.py"
        version = re.search(r'^__version__ = "(.+)"$', init.read_text() if init.exists() else "", re.MULTILINE)
        return str(root), version.group(1) if version else "of no version", digest.hexdigest()

    return read_source


def driver_source() -> SourceTree:
    """The copy that this process imported."""
    return SourceTree(*source_reader()(None))


def working_tree_source() -> SourceTree | None:
    """The copy that came with the running script, as `lib/rankmill` beside or above it.

    In a submitted job also in the current folder: the uploaded working directory, whatever the entry point is.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = [*Path(script).resolve().parents[:2]] if script else []
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        folders.append(Path.cwd())
    for folder in folders:
        package = folder / "lib" / "rankmill"
        if (package / "__init__.py").is_file():
            return SourceTree(*source_reader()(str(package)))
    return None
