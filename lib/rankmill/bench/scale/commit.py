"""What committing costs beside scoring."""

import statistics

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch import job as batch
from rankmill.bench.scale.executors import Timed
from rankmill.bench.scale.inputs import one_file
from rankmill.bench.scale.jobs import job_settings, places
from rankmill.bench.scale.measured import Figure, Measured, Say, run, sayer, show
from rankmill.settings.scale import CommitSettings

_NOTE = (
    "One worker, one shard after the other. Commit: from logits to a commit record that is there for good, that is "
    "ranking, Parquet, hashes and three objects created and synced (rejected rows, part, commit record); its share is "
    "of scoring and commit together. A job commits beside its workers, so that less of it, or nothing, is waited for."
)


def measure(settings: CommitSettings, say: Say) -> Measured:
    """Run the same job in every place."""
    figures = [Figure("shards", settings.shards, ""), Figure("pairs per shard", settings.pairs, "")]
    with places(settings.endpoint, settings.bucket) as (folder, found):
        source = folder / "in.parquet"
        one_file(source, settings.shards, settings.pairs)
        _spoil_last(source, settings.pairs)
        for place, (output, storage) in found.items():
            say(f"{place}: {settings.shards} shards of {settings.seconds:g} s")
            timed = Timed(settings.seconds)
            batch.run(batch.prepare(job_settings(source, output, storage, settings.pairs)), timed)
            scoring, commit = sum(timed.scoring), sum(timed.committing)
            figures += [
                Figure(f"{place}, reading and encoding", 1000 * statistics.median(timed.encoding), "ms/shard"),
                Figure(f"{place}, scoring", 1000 * statistics.median(timed.scoring), "ms/shard"),
                Figure(f"{place}, commit", 1000 * statistics.median(timed.committing), "ms/shard"),
                Figure(f"{place}, commit, of the CPU", 1000 * statistics.median(timed.committing_cpu), "ms/shard"),
                Figure(f"{place}, share of commit", 100 * commit / (scoring + commit), "%", "<= 2"),
            ]
    return run("commit", figures, _NOTE)


def commit_command(settings: CommitSettings) -> int:
    """`jobs/scale.py commit`."""
    return show(measure(settings, sayer(settings)), settings)


def _spoil_last(source: object, pairs: int) -> None:
    """Take the text away from the last row of each shard, for there to be rejected rows to write."""
    table = pq.read_table(source)
    texts = table.column("text").to_pylist()
    texts[pairs - 1 :: pairs] = [None] * len(texts[pairs - 1 :: pairs])
    place = table.schema.get_field_index("text")
    pq.write_table(table.set_column(place, "text", pa.array(texts, pa.string())), source, write_page_checksum=True)
