"""A store in memory whose every request waits for its turn: a test decides who acts next, and what gets lost."""

import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from rankmill.storage.backend import Folder, Head, ReplacedError
from rankmill.storage.retry import Patience, TransientError
from rankmill.storage.store import Store

Fate = Literal["answered", "lost", "unanswered", "late"]
"""What becomes of a request: `lost` on its way there, `unanswered` after it was acted on, or acted on `late`, when its
sender has given it up."""

T = TypeVar("T")


class KilledError(BaseException):
    """Raised inside a run that was killed; like SIGKILL, it must not be caught."""


class Memory:
    """What the store holds, and everything that was ever written."""

    def __init__(self, *, conditional: bool = True) -> None:
        self.objects: dict[str, tuple[bytes, Mapping[str, str]]] = {}
        self.writes = 0
        self.overwritten: list[str] = []
        self.late: list[Callable[[], object]] = []
        self._conditional = conditional

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str]) -> bool:
        """Put-if-absent; a plain PUT when the memory is not conditional."""
        if key in self.objects:
            if self._conditional:
                return False
            self.overwritten += [key] if self.objects[key][0] != body else []
        self.objects[key] = (body, metadata)
        self.writes += 1
        return True


class Run:
    """One driver: a function in a thread that acts only when it is told to."""

    def __init__(self, work: Callable[["Run"], str]) -> None:
        self.now = 0.0
        self.outcome: str | BaseException | None = None
        """What it returned or raised; None while it lives."""
        self._fate: Fate = "answered"
        self._killed = False
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._live, args=(work,), daemon=True)
        self._thread.start()
        self._paused.acquire()

    @property
    def alive(self) -> bool:
        """Whether it can still act."""
        return self.outcome is None

    def step(self, fate: Fate = "answered") -> None:
        """Let it do one request, with this fate, and go on until the next."""
        if self.alive:
            self._fate = fate
            self._go.release()
            self._paused.acquire()

    def kill(self) -> None:
        """End it where it stands."""
        self._killed = True
        self.step()
        self._thread.join()

    def turn(self) -> Fate:
        """Wait for the next step; called by the run itself. Its helper threads, which only read, do not wait."""
        if threading.current_thread() is not self._thread:
            return "answered"
        self._paused.release()
        self._go.acquire()
        if self._killed:
            raise KilledError
        return self._fate

    def sleep(self, seconds: float) -> None:
        """Let time go by, on a clock of its own."""
        self.turn()
        self.now += seconds

    def _live(self, work: Callable[["Run"], str]) -> None:
        try:
            self.turn()
            self.outcome = work(self)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.outcome = error
        self._paused.release()


class MemoryFolder:
    """The store as one run sees it."""

    def __init__(self, memory: Memory, run: Run) -> None:
        self._memory, self._run = memory, run

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str]) -> bool:
        """Write unless something is there."""
        return self._request(lambda: self._memory.put_new(key, body, dict(metadata)))

    def try_writing(self, key: str) -> None:
        """Write and delete."""
        self.put_new(key, b"", {})
        self.delete(key)

    def get(self, key: str, if_match: str | None) -> bytes:
        """Read."""

        def act() -> bytes:
            if key not in self._memory.objects:
                raise FileNotFoundError(key)
            body = self._memory.objects[key][0]
            if if_match is not None and hashlib.sha256(body).hexdigest() != if_match:
                raise ReplacedError(key)
            return body

        return self._request(act)

    def head(self, key: str) -> Head | None:
        """Look."""

        def act() -> Head | None:
            body, metadata = self._memory.objects.get(key, (None, {}))
            return None if body is None else Head(len(body), hashlib.sha256(body).hexdigest(), metadata)

        return self._request(act)

    def read_range(self, key: str, start: int, stop: int, if_match: str | None) -> bytes:
        """Read some bytes."""
        return self.get(key, if_match)[start:stop]

    def keys(self, prefix: str) -> list[str]:
        """List."""
        return self._request(lambda: [key for key in self._memory.objects if key.startswith(f"{prefix}/")])

    def sizes(self) -> dict[str, int]:
        """List with sizes."""
        return self._request(lambda: {key: len(body) for key, (body, _) in self._memory.objects.items()})

    def names(self) -> list[str]:
        """List with the delimiter."""

        def act() -> list[str]:
            parts = (key.partition("/") for key in self._memory.objects)
            return list({head + slash for head, slash, _ in parts})

        return self._request(act)

    def delete(self, key: str) -> None:
        """Delete."""
        self._request(lambda: self._memory.objects.pop(key, None))

    def _request(self, act: Callable[[], T]) -> T:
        fate = self._run.turn()
        if fate == "late":
            self._memory.late.append(act)
        if fate in {"lost", "late"}:
            raise TransientError(fate)
        answer = act()
        if fate == "unanswered":
            raise TransientError(fate)
        return answer


class MemoryStore(Store):
    """The real `Store`, over a memory."""

    def __init__(self, memory: Memory, run: Run) -> None:
        super().__init__("memory", patience=Patience(seconds=1e9, first_pause=0, longest_pause=0))
        self.memory, self.run = memory, run

    @property
    def _folder(self) -> Folder:
        return MemoryFolder(self.memory, self.run)

    def with_patience(self, patience: Patience) -> Store:  # noqa: ARG002 - time is not what ends a request here
        """The same store."""
        return self
