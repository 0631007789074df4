"""The fixtures that other tests build on: the S3 server is reached by every client, on workers too."""

import os
from pathlib import Path

import obstore
import pytest
import s3fs
from obstore.store import S3Store
from pyarrow.fs import FileSystem

from tests.conftest import S3Bucket


def read_with_pyarrow(uri: str) -> bytes:
    filesystem, path = FileSystem.from_uri(uri)
    with filesystem.open_input_file(path) as file:
        return bytes(file.read())


@pytest.mark.usefixtures("local_ray")
def test_workers_and_driver_see_the_same_bucket(s3: S3Bucket) -> None:
    import ray  # noqa: PLC0415

    s3fs.S3FileSystem().pipe(f"{s3.bucket}/one", b"from s3fs")
    assert ray.get(ray.remote(read_with_pyarrow).remote(s3.uri("one"))) == b"from s3fs"


def test_put_if_absent_has_one_winner(s3: S3Bucket) -> None:
    store = S3Store(s3.bucket, client_options={"allow_http": True})
    obstore.put(store, "two", b"first", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, "two", b"second", mode="create")
    assert read_with_pyarrow(s3.uri("two")) == b"first"


def test_each_test_has_an_empty_bucket_of_its_own(s3: S3Bucket) -> None:
    filesystem, path = FileSystem.from_uri(s3.uri())
    assert [info.path for info in filesystem.get_file_info([path])]
    assert s3fs.S3FileSystem().ls(s3.bucket) == []


@pytest.mark.usefixtures("local_ray")
def test_ray_leaves_the_home_folder_alone() -> None:
    assert os.environ["RAY_AUTH_TOKEN"]
    before = Path.home() / ".ray" / "auth_token"
    assert not before.exists() or before.read_text() != os.environ["RAY_AUTH_TOKEN"]
