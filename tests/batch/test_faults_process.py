"""A stage in a process of its own: every way in which it can end, and what the parent is told."""

import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pyarrow as pa
import pytest

from rankmill.batch import stacks
from rankmill.batch.child import UNUSABLE
from rankmill.batch.nodes import on_every_node
from rankmill.batch.scratch import Scratch
from rankmill.batch.stage_process import StageDiedError, StageHungError, StageProcess
from rankmill.errors import InputError, ModelError

Stage = Callable[[pa.Table], pa.Table]


class UnpicklableError(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def obey(order: int) -> None:
    """What happens to the process, for better or worse."""
    match order:
        case -1:
            os._exit(3)
        case -2:
            os.kill(os.getpid(), signal.SIGSEGV)
        case -3:
            raise InputError("It cannot be used.", ["one", "two"])
        case -4:
            raise UnpicklableError("this", "that")
        case -5:
            raise RuntimeError("CUDA error: device-side assert triggered")
        case -6:
            time.sleep(600)
        case -7:
            ctypes.PyDLL(None).sleep(600)  # in C, and no thread of Python's runs meanwhile


def working(offset: int, pulse: Callable[[], None]) -> Stage:
    """A stage that adds to numbers; negative ones are orders."""

    def work(table: pa.Table) -> pa.Table:
        number = table.column("n")[0].as_py()
        obey(number)
        if number == -8:
            for _ in range(8):
                time.sleep(0.6)
                pulse()
        return pa.table({"n": [number + offset], "process": [os.getpid()]})

    return work


def unloadable(path: str, _pulse: Callable[[], None]) -> Stage:
    """A stage whose constructor ends the process each time; counts in a file."""
    with Path(path).open("a") as file:
        file.write(".")
    os._exit(9)


def refusing(_pulse: Callable[[], None]) -> Stage:
    """A stage that cannot be constructed."""
    raise ModelError("No such model.")


def one(number: int) -> pa.Table:
    return pa.table({"n": [number]})


@pytest.fixture
def process(tmp_path: Path) -> Iterator[StageProcess]:
    with closing(StageProcess(working, (5,), tmp_path)) as process:
        process.start()
        yield process


def test_it_works_in_one_other_process(process: StageProcess) -> None:
    answers = [process.run(one(number)).to_pylist()[0] for number in (1, 2)]
    assert [answer["n"] for answer in answers] == [6, 7]
    assert len({answer["process"] for answer in answers} | {os.getpid()}) == 2


@pytest.mark.parametrize(
    ("order", "how"),
    [
        (-1, "ended with exit code 3"),
        (-2, "was killed by SIGSEGV"),
        (-5, f"ended with exit code {UNUSABLE} after RuntimeError: CUDA error: device-side assert"),
    ],
)
def test_how_it_died_is_told_and_another_takes_over(process: StageProcess, order: int, how: str) -> None:
    first = process.run(one(0)).column("process")[0]
    with pytest.raises(StageDiedError, match=how):
        process.run(one(order))
    process.start()
    assert process.run(one(0)).column("process")[0] != first


@pytest.mark.parametrize("order", [-6, -7], ids=["in Python", "in C, with the interpreter's lock"])
def test_one_that_gives_no_sign_of_life_is_killed(process: StageProcess, order: int) -> None:
    with pytest.raises(StageHungError, match=r"was killed by SIGKILL after 0\.5 s without a sign of life"):
        process.run(one(order), limit=0.5)
    assert process.longest_silence == 0.0
    process.start()
    assert process.run(one(1), limit=60).column("n")[0].as_py() == 6


@pytest.mark.slow
def test_one_that_is_slow_but_alive_is_left_alone(process: StageProcess) -> None:
    assert process.run(one(-8), limit=4).column("n")[0].as_py() == -3  # after nearly five seconds
    assert 0.5 < process.longest_silence < 4


def test_errors_come_back_as_they_were(process: StageProcess) -> None:
    with pytest.raises(InputError) as refused:
        process.run(one(-3))
    assert str(refused.value) == "It cannot be used.\n  - one\n  - two"
    assert "in work" in refused.value.__notes__[0]  # where it was raised
    with pytest.raises(RuntimeError, match="UnpicklableError: this and that"):
        process.run(one(-4))
    assert process.run(one(1)).column("n")[0].as_py() == 6


@pytest.mark.slow
def test_a_model_that_kills_its_process_while_it_loads_is_no_rows_fault(tmp_path: Path) -> None:
    with (
        closing(StageProcess(unloadable, (str(tmp_path / "loads"),), tmp_path)) as process,
        pytest.raises(ModelError, match="ended with exit code 9, 3 times in a row"),
    ):
        process.start()
    assert (tmp_path / "loads").read_text() == "..."


def test_a_model_that_refuses_is_not_asked_again(tmp_path: Path) -> None:
    with (
        closing(StageProcess(refusing, (), tmp_path)) as process,
        pytest.raises(ModelError, match=r"No such model\."),
    ):
        process.start()


_PARENT = """
import sys
from pathlib import Path
from rankmill.batch.stage_process import StageProcess
from tests.batch.test_faults_process import one, working
process = StageProcess(working, (0,), Path(sys.argv[1]))
process.start()
print(process.run(one(0)).column("process")[0].as_py(), flush=True)
process.run(one(int(sys.argv[2])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", [-6, -7], ids=["in Python", "in C, with the interpreter's lock"])
def test_it_ends_with_its_parent_even_at_work(tmp_path: Path, order: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", _PARENT, str(tmp_path), str(order)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        stack = ""
        while "in work" not in stack:  # it has got the order
            stack = stacks.collect(tmp_path)
        parent.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and "zombie" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
    while stacks.collect(tmp_path):  # nobody is asked who is gone, to the last of its threads
        assert time.monotonic() < deadline, "somebody is asked who is gone"


def test_only_deaths_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scratch = Scratch("run")
    with scratch.attempt("a"):
        assert scratch.deaths("a") == 1  # as another process sees it if this one ends here
    with pytest.raises(ValueError, match="bad"), scratch.attempt("a"):
        raise ValueError("bad")
    assert scratch.deaths("a") == 0
    for _ in range(2):
        with pytest.raises(StageDiedError), scratch.attempt("a"):
            raise StageDiedError("killed")
    assert (scratch.deaths("a"), scratch.deaths("b")) == (2, 0)
    scratch.remove()
    assert (scratch.deaths("a"), list(tmp_path.iterdir())) == (0, [])


@pytest.mark.usefixtures("local_ray")
def test_the_folder_goes_from_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's folders lie elsewhere here, as on another machine: only the node can have taken its own away."""
    import ray  # noqa: PLC0415 - of the tests here only this one needs it

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "of-the-driver"))
    scratch = Scratch(uuid.uuid4().hex)

    def begun() -> str:
        with suppress(StageDiedError), scratch.attempt("a"):
            raise StageDiedError("killed")
        return str(scratch.folder)

    there = Path(ray.get(ray.remote(begun).remote()))
    assert there != scratch.folder
    assert there.is_dir()
    tuple(on_every_node(scratch.remove, 60))
    assert not there.exists()
