"""What an index's own library raises, as a sentence of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from rankmill.errors import RankmillError, StorageError, first_line


@contextmanager
def index_errors(uri: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turns exceptions of these kinds into a sentence that names the index; errors of ours pass.

    Raises:
        StorageError: whatever it was.
    """
    try:
        yield
    except RankmillError:
        raise
    except kinds as error:
        raise StorageError(f"The index {uri} cannot be used: {first_line(error)}") from error
