"""How far a job is, by its commit records; and what `gc` takes away."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rankmill.batch import job as batch
from rankmill.batch.recorded import open_output, read
from rankmill.batch.status import Watcher, recent_rate
from rankmill.batch.sweep import leftovers, sweep
from rankmill.batch.verify import verify
from rankmill.settings.storage import StorageSettings
from rankmill.storage.lease import held
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import run_job, settings_for
from tests.batch.test_verify import Killed
from tests.conftest import S3Bucket


@pytest.mark.parametrize(
    ("commits", "rate"),
    [
        ([], None),
        ([(990.0, 50)], None),
        ([(980.0, 50), (990.0, 40), (1000.0, 60)], 5.0),  # the first one's pairs were scored before the clock started
        ([(990.0, 40), (980.0, 50)], 2.0),  # nothing since: the rate falls
        ([(100.0, 10**6), (980.0, 50), (990.0, 40)], 2.0),  # long ago
        ([(1005.0, 50), (1015.0, 40)], 4.0),  # by a clock that is ahead of ours
        ([(990.0, 40), (990.0, 40)], 4.0),
    ],
)
def test_the_rate_is_of_the_last_minutes(commits: list[tuple[float, int]], rate: float | None) -> None:
    assert recent_rate(commits, now=1000.0) == rate


@pytest.fixture
def killed(tmp_path: Path, model: Path, rows: list[Row]) -> Path:
    """The output of a job that was killed after three of nine shards."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    job = batch.prepare(settings_for(source, tmp_path / "out", model))
    with pytest.raises(ConnectionError):
        batch.run(job, Killed())
    return tmp_path / "out"


def test_a_job_is_watched_from_its_records(killed: Path, tmp_path: Path, model: Path, rows: list[Row]) -> None:
    store = open_output(str(killed), StorageSettings())
    watcher = Watcher(store)
    begun = watcher.look()
    assert (begun.complete, begun.totals.shards, begun.shards, begun.pairs) == (False, 3, 9, len(rows))
    assert begun.pairs_per_second is not None
    assert begun.seconds_left == pytest.approx((len(rows) - begun.totals.pairs_in) / begun.pairs_per_second)
    assert "3/9 shards" in begun.text()
    later = watcher.look(clock=lambda: begun.begun_at + 3600)
    assert (later.pairs_per_second, later.seconds_left) == (None, None)
    run_job(tmp_path / "in.parquet", killed, model)
    done = watcher.look()
    assert (done.complete, done.totals.shards, done.totals.pairs_in) == (True, 9, len(rows))
    assert done.begun_at == begun.begun_at


def test_a_damaged_record_does_not_hide_what_the_others_say(killed: Path) -> None:
    record = killed / "_rankmill" / "commits" / "000001.json"
    record.write_bytes(record.read_bytes()[:100])
    found = Watcher(Store(str(killed))).look()
    assert (found.totals.shards, found.damaged) == (2, ("_rankmill/commits/000001.json",))
    assert "_rankmill/commits/000001.json is no commit record and was not counted" in found.text()


def test_who_is_at_work_is_said(killed: Path) -> None:
    store = open_output(str(killed), StorageSettings())
    with held(store, 30):
        holder = Watcher(store).look().holder
        assert holder is not None
        assert holder.alive
    holder = Watcher(store).look().holder
    assert holder is not None
    assert holder.alive is False


def test_on_s3_too(s3: S3Bucket, tmp_path: Path, model: Path, rows: list[Row]) -> None:
    run_job(write_parquet(tmp_path / "in.parquet", rows), s3.uri("out"), model)
    store = open_output(s3.uri("out"), StorageSettings())
    assert Watcher(store).look().complete
    store.create("_rankmill/probe/0123", b"left")
    with held(store, 30) as lease:
        swept = sweep(read(store), lease.check)
    assert "_rankmill/probe/0123" in swept.files
    assert verify(read(store), deep=True).whole


def litter(output: Path) -> list[str]:
    """What killed runs leave."""
    names = [
        "_rankmill/gathered/000000-000000-0123456789abcdef.parquet",
        "_rankmill/probe/0123",
        "_rankmill/staging/4567",
        "_rejected/part-000001-0123456789abcdef.parquet",
    ]
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(b"left")
    return names


def contents(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_leftovers_are_swept_and_nothing_else(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", [{**rows[0], "text": None}, *rows])
    run_job(source, tmp_path / "out", model, max_rejected=1)
    store = Store(str(tmp_path / "out"))
    before = contents(tmp_path / "out")
    assert leftovers(read(store)).files == ()
    names = litter(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("not ours")
    swept = sweep(read(store), lambda: None)
    assert swept.files == tuple(names)
    assert swept.bytes == 4 * len(names)
    assert contents(tmp_path / "out") == before | {"notes.txt": b"not ours"}


def test_what_a_run_may_still_commit_is_kept(killed: Path, tmp_path: Path, model: Path) -> None:
    part = (killed / "part-000001.parquet").read_bytes()
    litter(killed)
    for name in ("part-000005.parquet", "_rejected/part-000005-0123456789abcdef.parquet"):
        (killed / name).write_bytes(part)
    swept = sweep(read(Store(str(killed))), lambda: None)
    assert not any("000005" in name for name in swept.files)
    assert len(swept.files) == 4
    (killed / "part-000005.parquet").unlink()
    run_job(tmp_path / "in.parquet", killed, model)
    assert verify(read(Store(str(killed))), deep=True).whole, "a job that ends takes away what lost in it"


def cut_short(record: Path, _: Path) -> None:
    record.write_bytes(record.read_bytes()[:100])


def with_another_name(record: Path, rejected: Path) -> None:
    record.write_bytes(record.read_bytes().replace(rejected.name.encode(), b"x" + rejected.name.encode()[1:]))


@pytest.mark.parametrize("harm", [cut_short, with_another_name])
def test_what_a_damaged_record_may_have_named_is_kept(
    harm: Callable[[Path, Path], None], tmp_path: Path, model: Path, rows: list[Row]
) -> None:
    out = tmp_path / "out"
    run_job(write_parquet(tmp_path / "in.parquet", [{**rows[0], "text": None}, *rows]), out, model, max_rejected=1)
    (rejected,) = (out / "_rejected").iterdir()
    litter(out)
    harm(out / "_rankmill" / "commits" / "000000.json", rejected)
    swept = sweep(read(Store(str(out))), lambda: None)
    assert len(swept.files) == 4, "the rest is cleaned"
    assert rejected.exists()
    assert len(swept.damaged) == 1
    assert "commits/000000.json cannot be trusted (" in swept.damaged[0]
    assert "Delete the record, and _SUCCESS and" in swept.damaged[0]
    for name in ("_SUCCESS", "_rankmill/manifest.json", "_rankmill/commits/000000.json"):
        (out / name).unlink()
    run_job(tmp_path / "in.parquet", out, model, max_rejected=1)
    assert verify(read(Store(str(out))), deep=True).whole, "what the sentence says helps"


def test_only_the_newest_lease_is_kept(killed: Path) -> None:
    store = Store(str(killed))
    epoch = 0
    for _ in range(3):
        with held(store, 30) as lease:
            lease.beat()
            epoch = lease.epoch
    swept = sweep(read(store), lambda: None)
    assert {f"_rankmill/lease/{number:08}.json" for number in (epoch - 2, epoch - 1)} <= set(swept.files)
    assert not any(f"{epoch:08}" in name for name in swept.files)
    with held(store, 30) as lease:
        assert lease.epoch == epoch + 1
