"""Every error that rankmill raises on purpose, each with the exit code its command ends with.

    RankmillError                    1
    ├── UsageError                   2   a flag or a setting is wrong
    ├── InputError                   2   the input cannot be used; carries every problem found
    │   └── DamagedInputError        2   a file of it cannot be read
    ├── ModelError                   2   the model cannot be used
    │   └── EndpointError            2   the endpoint behind it gives no scores
    ├── NonFiniteScoreError          1   a forward pass gave NaN or infinity; names the pairs
    ├── OutputConflictError          3   the output holds a different job, or something else
    ├── OutputBusyError              4   another live run holds the output
    ├── TooManyRejectedError         5   more rejected rows than allowed
    ├── NoProgressError              6   nothing was finished for too long
    └── StorageError                 7   storage or credentials

Messages are sentences that name the culprit, both numbers and the fix. Every class takes one message (and plain
keyword data kept in `args`), so that every error survives pickling on its way back from a Ray worker.
"""

from collections.abc import Sequence
from typing import ClassVar


class RankmillError(Exception):
    """Base of all errors raised on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(RankmillError):
    """A flag, a setting or a combination of them is wrong; nothing was written."""

    exit_code = 2


class InputError(RankmillError):
    """The input cannot be used; nothing was written.

    Args:
        message: one sentence.
        problems: one line per culprit (file, column, value); all of them, not just the first.
    """

    exit_code = 2

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(problems))

    def __str__(self) -> str:
        message, problems = self.args
        return "\n".join([message, *(f"  - {problem}" for problem in problems)])


class DamagedInputError(InputError):
    """A file of the input cannot be read: it is damaged, cut short, encrypted, or not what its name says."""


class ModelError(RankmillError):
    """The model cannot be loaded or is not a reranker; nothing was written."""

    exit_code = 2


class EndpointError(ModelError):
    """The endpoint behind a scorer gave no answer, or refused.

    Args:
        message: says so, and holds nothing of what was asked or answered.
        answer: goes on with the beginning of the answer, which may quote what was asked.
        passing: whether it may give scores a little later.
    """

    def __init__(self, message: str, answer: str = "", passing: bool = False) -> None:  # noqa: FBT001, FBT002 - of args
        super().__init__(message, answer, passing)

    @property
    def message(self) -> str:
        """Fit for a log."""
        return str(self.args[0])

    @property
    def passing(self) -> bool:
        """Whether it may give scores a little later."""
        return bool(self.args[2])

    def __str__(self) -> str:
        return f"{self.args[0]}{self.args[1]}"


class NonFiniteScoreError(RankmillError):
    """A forward pass gave NaN or infinity.

    Args:
        message: one sentence.
        pairs: positions of the pairs in the call, ascending.
    """

    reason = "non_finite_score"
    """What a batch job writes beside the rejected rows."""

    def __init__(self, message: str, pairs: Sequence[int] = ()) -> None:
        super().__init__(message, tuple(pairs))

    @property
    def pairs(self) -> tuple[int, ...]:
        """Positions of the pairs in the call, ascending."""
        return tuple(self.args[1])

    def __str__(self) -> str:
        return str(self.args[0])


class PairTooLargeError(NonFiniteScoreError):
    """A pair, or the list that it is in, does not fit into memory, not even alone: it has no score either."""

    reason = "out_of_memory"


class OutputConflictError(RankmillError):
    """The output folder holds a different job, or something that is not ours."""

    exit_code = 3


class OutputBusyError(RankmillError):
    """Another live run holds the output."""

    exit_code = 4


class TooManyRejectedError(RankmillError):
    """More rows were rejected than the settings allow."""

    exit_code = 5


class NoProgressError(RankmillError):
    """Nothing was finished for too long: no shard, or no start."""

    exit_code = 6


class StorageError(RankmillError):
    """The object store or the file system refused, or credentials are missing or wrong."""

    exit_code = 7


def first_line(error: BaseException) -> str:
    """The first line of what an exception of somebody else's says, 300 characters at most; its name if it is silent."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
