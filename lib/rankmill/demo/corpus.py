"""The demonstration's corpus: the documentation of the Python standard library, as the running interpreter holds it.

Real English text, several thousand documents, nothing downloaded. The walk happens in a child process
(`docstrings.py` says why); this module only starts it and gives its answer as columns.
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

_TIMEOUT_SECONDS: Final = 120  # the walk takes about half a second; a slow disk may need longer, nothing needs this


@cache
def documents() -> tuple[tuple[str, str], ...]:
    """(doc_id, text) of every documented public object of the standard library, sorted by doc_id.

    `doc_id` is the public dotted name (`pathlib.Path.rename`, `json.dumps`, `str.split`); `text` is the cleaned
    docstring. One document per object. Takes about half a second, once per process.

    Raises:
        RuntimeError: the child process failed; its last words are in the message.
    """
    # -I: no user site, no PYTHON* variables; -S: no site-packages, whose start-up files replace parts of the library.
    command = [sys.executable, "-I", "-S", "-W", "ignore", str(Path(__file__).with_name("docstrings.py"))]
    done = subprocess.run(  # noqa: S603 - our own file, run by this interpreter
        command, capture_output=True, timeout=_TIMEOUT_SECONDS, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        last_words = done.stderr.decode("utf-8", "replace").strip()[-2000:]
        raise RuntimeError(
            f"Reading the standard library's documentation failed: {sys.executable} ended with code "
            f"{done.returncode}. Its last words:\n{last_words}"
        )
    return tuple((name, text) for name, text in json.loads(done.stdout))


def corpus() -> "pa.Table":
    """`doc_id, title, text`, all strings, sorted by `doc_id`; `title` is the name again, as in a search result."""
    import pyarrow as pa  # noqa: PLC0415 - `documents` works without it

    names = [name for name, _ in documents()]
    return pa.table({"doc_id": names, "title": names, "text": [text for _, text in documents()]})
