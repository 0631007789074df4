"""The corpus is the running interpreter's documentation: complete, unique, stable, and built without a trace."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from rankmill.demo import docstrings
from rankmill.demo.corpus import corpus, documents


def test_holds_the_objects_people_ask_about() -> None:
    texts = dict(documents())
    assert len(texts) > 5000
    for name in ("pathlib.Path.rename", "json.dumps", "str.split", "os.path.join", "open", "typing.Optional"):
        assert name in texts
    assert texts["shutil.rmtree"].startswith("Recursively delete a directory tree.")


def test_names_are_the_ones_people_use() -> None:
    names = dict(documents()).keys()
    for alias, name in (
        ("IOError", "OSError"),
        ("posixpath.join", "os.path.join"),
        ("asyncio.runners.run", "asyncio.run"),
        ("io.open", "open"),
        ("mailbox.Message.get_payload", "email.message.Message.get_payload"),
        ("multiprocessing.process.BaseProcess.start", "multiprocessing.Process.start"),
        ("EOFError.add_note", "BaseException.add_note"),
    ):
        assert name in names
        assert alias not in names


def test_one_document_per_object_in_a_fixed_order() -> None:
    names = [name for name, _ in documents()]
    assert names == sorted(set(names))
    repeated = Counter((name.rpartition(".")[2], text) for name, text in documents())
    assert max(repeated.values()) == 1
    assert not any(part.startswith("_") for name in names for part in name.split("."))
    assert all(text == text.strip() and text for _, text in documents())


def test_table_repeats_the_name_as_title() -> None:
    table = corpus()
    assert table.column_names == ["doc_id", "title", "text"]
    assert table["doc_id"].equals(table["title"])
    assert table.num_rows == len(documents())
    assert all(column.null_count == 0 for column in table.columns)


def test_needs_nothing_but_the_standard_library_and_says_nothing() -> None:
    program = Path(docstrings.__file__)
    runs = [
        subprocess.run([sys.executable, "-I", "-S", *flags, program], capture_output=True, check=True, timeout=60)
        for flags in (["-W", "ignore"], ["-W", "error"])
    ]
    assert runs[0].stdout[:2] == b"[["
    assert runs[0].stderr == b""
    # Modules that warn on import are left out under -W error; apart from these, two runs agree.
    assert len(runs[1].stdout) > 0.8 * len(runs[0].stdout)


def test_leaves_no_trace_in_this_process() -> None:
    program = (
        "import sys; from rankmill.demo.corpus import documents; documents(); "
        "print([name for name in ('turtle', 'tkinter', 'mailbox', 'curses', 'sqlite3') if name in sys.modules])"
    )
    library = str(Path(docstrings.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": library}, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.strip() == b"[]"
