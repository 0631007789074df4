"""Imports in lib/rankmill only point down."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "lib"

LAYERS = (
    ("types", "errors", "wording"),
    ("settings",),  # what a person may set; the tables take their column names from it
    ("storage",),  # inputs are read through it too
    ("tables",),
    ("scoring", "ranking", "retrieval", "evaluation"),
    ("batch", "serving", "training"),  # the first row that may import Ray
    ("cluster",),
    ("demo",),
    ("bench",),  # measures what lies below, on the demonstration's pairs
    ("cli",),
    ("__main__",),
)
"""Bottom first. A module imports its own package and rows above it in this table; never its neighbours in a row."""

ROW = {name: row for row, names in enumerate(LAYERS) for name in names}
FIRST_ROW_WITH_RAY = ROW["batch"]
ABOVE_THE_LIBRARY = {"jobs", "serve", "tests"}
BY_NAME = {"import_module", "__import__", "find_spec", "importorskip"}

MODULES = sorted((LIBRARY / "rankmill").rglob("*.py"))


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported anywhere in a module, in functions too; also those given as strings."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, "relative imports hide the layer"
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(target)), *_]
            ):
                if name in BY_NAME:
                    yield target


def layer_of(path: Path) -> str:
    return path.relative_to(LIBRARY / "rankmill").parts[0].removesuffix(".py")


def violations(layer: str, names: Iterator[str]) -> list[str]:
    found = []
    for name in names:
        top, *below = name.split(".")
        if top == "ray" and ROW[layer] < FIRST_ROW_WITH_RAY:
            found.append(f"imports {name}: nothing below batch knows of Ray")
        if top in ABOVE_THE_LIBRARY:
            found.append(f"imports {name}, which lies above the library")
        if top == "rankmill" and below and below[0] != layer and below[0] in ROW and ROW[below[0]] >= ROW[layer]:
            found.append(f"imports {name}, which does not lie below {layer}")
    return found


def test_every_module_has_a_layer() -> None:
    assert {layer_of(path) for path in MODULES} - {"__init__"} <= set(ROW)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_only_point_down(path: Path) -> None:
    if layer_of(path) == "__init__":
        # `rankmill.load` is imported when it is first asked for; not before, says test_reranker.py
        inside = [name for name in imported_names(ast.parse(path.read_text())) if name.startswith("rankmill")]
        assert {name.rpartition(".")[0] for name in inside} <= {"rankmill.scoring", "rankmill.scoring.reranker"}
        return
    assert violations(layer_of(path), imported_names(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("layer", "statement"),
    [
        ("scoring", "from rankmill.batch.plan import Plan"),
        ("scoring", "from rankmill import ranking"),
        ("scoring", "import ray"),
        ("tables", "def f():\n    from ray.data import Dataset"),
        ("storage", "import importlib\nimportlib.import_module('ray.data')"),
        ("settings", "import rankmill.tables.schema"),
        ("batch", "from rankmill import cluster"),
        ("cli", "from jobs import rerank"),
    ],
)
def test_this_test_notices(layer: str, statement: str) -> None:
    assert violations(layer, imported_names(ast.parse(statement)))


@pytest.mark.parametrize(
    ("layer", "statement"),
    [
        ("batch", "import ray"),
        ("batch", "from rankmill import __version__, scoring"),
        ("scoring", "from rankmill.scoring.packing import pack"),
        ("cli", "from rankmill.demo import run"),
        ("types", "import rays"),
    ],
)
def test_this_test_allows(layer: str, statement: str) -> None:
    assert violations(layer, imported_names(ast.parse(statement))) == []
