"""Settings of the jobs that are measured, and the places they write to."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankmill.bench.scale.s3 import s3_server
from rankmill.bench.scale.scorers import CONSTANT
from rankmill.settings.rerank import RerankSettings
from rankmill.settings.storage import StorageSettings


@contextmanager
def places(endpoint: str | None, bucket: str) -> Iterator[tuple[Path, dict[str, tuple[str, StorageSettings]]]]:
    """A scratch folder, and where outputs may lie: the place's name, the URI and how to reach it.

    Args:
        endpoint: of an S3 server with keys in the environment; None for one of our own.
        bucket: of the server.
    """
    with tempfile.TemporaryDirectory(prefix="rankmill-scale-") as name:
        folder = Path(name)
        local = {"local folder": (str(folder / "out"), StorageSettings())}
        if endpoint is not None:
            yield folder, local | {"S3": (f"s3://{bucket}/{folder.name}", StorageSettings(endpoint=endpoint))}
            return
        with s3_server() as url:
            # by a setting too: the workers of a cluster that is there already know another environment
            yield folder, local | {"S3": (f"s3://{bucket}/out", StorageSettings(endpoint=url))}


def job_settings(source: Path, output: str, storage: StorageSettings, shard_pairs: int) -> RerankSettings:
    """A quiet job with a scorer that computes nothing."""
    return RerankSettings(
        input=str(source),
        output=output,
        storage=storage,
        model=CONSTANT,
        shard_pairs=shard_pairs,
        max_rejected="100%",
        quiet=True,
    )
