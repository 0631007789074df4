"""Create-if-absent, with one meaning on disks and object stores."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankmill.errors import StorageError, UsageError
from rankmill.storage.store import Store
from tests.conftest import S3Bucket

Opener = Callable[[str], Store]


@pytest.fixture(params=["local", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "local":
        return lambda folder: Store(str(tmp_path / folder))
    s3: S3Bucket = request.getfixturevalue("s3")
    return lambda folder: Store(s3.uri(folder))


def test_the_first_writer_wins(opened: Opener) -> None:
    store = opened("out/y")
    assert store.create("a/b.parquet", b"first")
    assert not store.create("a/b.parquet", b"second")
    assert store.read("a/b.parquet") == b"first"


def test_of_many_writers_at_once_exactly_one_wins(opened: Opener) -> None:
    for round_number in range(5):
        stores = [opened("race") for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            wins = list(pool.map(lambda s, r=round_number: s.create(f"key-{r}", str(id(s)).encode()), stores))
        assert wins.count(True) == 1
        assert stores[0].read(f"key-{round_number}") == str(id(stores[wins.index(True)])).encode()


def test_listing_reading_deleting(opened: Opener) -> None:
    store = opened("out")
    assert store.top_level() == []
    for key in ("_SUCCESS", "part-0", "_rankmill/commits/0", "_rankmill/commits/1"):
        store.create(key, key.encode())
    assert store.top_level() == ["_SUCCESS", "_rankmill/", "part-0"]
    assert sorted(store.keys("_rankmill/commits")) == ["_rankmill/commits/0", "_rankmill/commits/1"]
    assert store.read_if_present("absent") is None
    with pytest.raises(StorageError, match="absent"):
        store.read("absent")
    store.delete(["part-0", "absent"])
    assert store.read_if_present("part-0") is None
    assert pickle.loads(pickle.dumps(store)).read("_SUCCESS") == b"_SUCCESS"  # noqa: S301 - our own bytes


def test_a_bucket_that_does_not_exist_is_named(s3: S3Bucket) -> None:
    with pytest.raises(StorageError, match=r"no such bucket: s3://absent-bucket/out"):
        Store("s3://absent-bucket/out").create("key", b"")
    assert s3.bucket


def test_unknown_schemes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"ftp://.*s3://, gs:// or az://"):
        Store("ftp://host/folder").create("key", b"")
    with pytest.raises(UsageError, match="names no bucket"):
        Store("s3:///folder").create("key", b"")


def test_no_permission_on_a_local_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="file/out"):
        Store(str(tmp_path / "file" / "out")).create("key", b"")
