"""Create-if-absent, with one meaning on disks and object stores."""

import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from rankmill.errors import StorageError, UsageError
from rankmill.storage.credentials import s3_options
from rankmill.storage.store import Store
from tests.conftest import S3Bucket

LIBRARY = Path(__file__).parents[2] / "lib"
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


def test_a_writer_killed_half_way_leaves_nothing_beside_the_parts(tmp_path: Path) -> None:
    """The kernel kills the writer (SIGXFSZ) when its file grows beyond the limit."""
    writer = """
        import resource, signal, sys
        from rankmill.storage.store import Store
        store = Store(sys.argv[1])
        store.create("part-0.parquet", b"whole")
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        store.create("part-1.parquet", bytes(5000))
    """
    command = [sys.executable, "-c", textwrap.dedent(writer), str(tmp_path)]
    killed = subprocess.run(command, env={"PYTHONPATH": str(LIBRARY)}, check=False)
    assert killed.returncode == -signal.SIGXFSZ
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("_")] == ["part-0.parquet"]
    assert Store(str(tmp_path)).create("part-1.parquet", b"again")


def test_a_bucket_that_does_not_exist_is_named(s3: S3Bucket) -> None:
    with pytest.raises(StorageError, match=r"no such bucket: s3://absent-bucket/out"):
        Store("s3://absent-bucket/out").create("key", b"")
    assert s3.bucket


def test_unknown_schemes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"ftp://.*s3://, gs:// or az://"):
        Store("ftp://host/folder").create("key", b"")
    with pytest.raises(UsageError, match="names no bucket"):
        Store("s3:///folder").create("key", b"")


def test_a_local_folder_that_cannot_be_listed_is_not_taken_for_empty(tmp_path: Path) -> None:
    """Else a run would see no commit record and do all the work again. A file cannot be listed, not by root either."""
    store = Store(str(tmp_path))
    store.create("commits", b"no folder")
    with pytest.raises(StorageError, match=r"Could not list .*/commits: .*Not a directory"):
        store.keys("commits")
    assert store.keys("absent") == []


def test_no_permission_on_a_local_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="file/out"):
        Store(str(tmp_path / "file" / "out")).create("key", b"")


def test_region_and_endpoint_come_from_the_profile(
    s3: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only a config file names them, as for inputs: botocore reads it, obstore alone would not."""
    config, keys = tmp_path / "config", tmp_path / "credentials"
    config.write_text(f"[profile far]\nregion = eu-west-3\nendpoint_url = {s3.endpoint}\n")
    keys.write_text("[far]\naws_access_key_id = test\naws_secret_access_key = testsecret\n")
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_PROFILE", "far")
    assert s3_options()["region"] == "eu-west-3"
    store = Store(s3.uri("out"))
    assert store.create("key", b"body")
    assert fsspec.open(s3.uri("out/key"), skip_instance_cache=True).open().read() == b"body"


def test_the_environment_wins_over_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for region, endpoint in (
        ("", "https://s3.eu-west-3.amazonaws.com"),
        ("eu-north-1", "https://s3.eu-north-1.amazonaws.com"),
    ):
        monkeypatch.setenv("AWS_REGION", region)
        options = s3_options()
        assert options["endpoint"] == endpoint
        assert options["client_options"] == {"allow_http": False}
