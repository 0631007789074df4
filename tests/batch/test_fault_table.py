"""The fault table: what a batch job survives, each line with a test whose docstring begins with its number.

`F7, F20: …` or `F14.` at the start of a test's docstring names the lines that it proves.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]

FAULTS = {
    "F1": "the driver is killed (SIGKILL) after any step that it writes down",
    "F2": "a worker, or the process of its model, is killed",
    "F3": "a machine is lost",
    "F4": "the head of the cluster is lost",
    "F5": "a storm of SlowDown and of other trouble with the store",
    "F6": "connections that are reset, bodies that are cut short or stall",
    "F7": "the answer to a write gets lost",
    "F8": "a byte is turned, in the input or in the output",
    "F9": "two runs begin together",
    "F10": "a run is paused for longer than its lease, and another takes over",
    "F11": "a worker of a run that was taken over from finishes late, with other bytes",
    "F12": "the same command with other settings or another model",
    "F13": "an input file is changed, removed or added, before the job continues or while it runs",
    "F14": "a row that is null, makes the model raise, or has no finite score",
    "F15": "a row that kills the process it is worked on in",
    "F16": "clocks that differ",
    "F17": "a store without atomic create",
    "F18": "credentials that run out while the job runs",
    "F19": "an output folder that holds something else",
    "F20": "a reader that looks on: never a partial result",
    "F21": "more objects than a page of a listing holds",
    "F22": "a full disk below the output; what Ray spills elsewhere is for Ray to report",
    "F23": "SIGTERM, Ctrl-C",
    "F24": "no rows, no files",
}

NOT_TESTED: dict[str, str] = {}
"""Lines without a test, each with a sentence that says why."""


def named() -> dict[str, list[str]]:
    """The tests that name a line, by line."""
    found = defaultdict(list)
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                names = re.match(r"F\d+(, F\d+)*\b", ast.get_docstring(node) or "")
                for name in names[0].split(", ") if names else ():
                    found[name].append(f"{file.relative_to(TESTS)}::{node.name}")
    return found


def test_every_fault_has_a_test_or_a_sentence_why_not() -> None:
    tests = named()
    assert tests.keys() - FAULTS.keys() == set(), "tests of faults that are not in the table"
    assert FAULTS.keys() - tests.keys() == NOT_TESTED.keys()
