"""How much memory a piece of a test takes, whatever the tests before it took."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rankmill.batch.machine import peak_bytes

MIB = 1 << 20


@contextmanager
def peak_growth() -> Iterator[Callable[[], int]]:
    """Forget the peak of this process' memory (Linux); what is handed over says by how many bytes it grew since."""
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    yield lambda: peak_bytes() - before
