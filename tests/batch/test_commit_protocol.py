"""Two drivers and a zombie, interleaved request by request: what a reader may see, whatever happens in which order.

The claim, the lease, the shard commits, the manifest and `_SUCCESS` are the real ones; the store is one in memory that
loses requests, loses answers and acts late. Three changes to the protocol show that the checks can fail.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from rankmill.batch import manifest, output
from rankmill.batch.freight import ScoredShard
from rankmill.batch.parts import PartOptions
from rankmill.batch.receipts import total
from rankmill.batch.stages import write_shard
from rankmill.errors import OutputBusyError
from rankmill.settings.rerank import Columns
from rankmill.storage.lease import acquire
from rankmill.storage.store import Store
from rankmill.tables.schema import Layout
from tests.batch.memory_store import Fate, KilledError, Memory, MemoryStore, Run
from tests.batch.reader import refuse_partial_result

SHARDS, PAIRS = 2, 3
LEASE_SECONDS = 4.0
LAYOUT = Layout(
    nested=False,
    columns=Columns(),
    query_id_type=pa.string(),
    doc_id_type=pa.string(),
    title=False,
    retrieval_score=False,
    keep=(),
    template=(),
)
OPTIONS = PartOptions(LAYOUT, ("in.parquet",), None, False, "identity", "model", "", "scorer")
RECORD = output.JobRecord(settings={}, inputs=(), scorer="scorer", plan={"shards": SHARDS})
FATES: tuple[Fate, ...] = ("answered", "lost", "unanswered", "late")


@dataclass(frozen=True)
class Mutation:
    """A protocol that is not ours."""

    conditional: bool = True
    success_first: bool = False
    checks_token: bool = True


def scored(shard: int, run: int) -> ScoredShard:
    """A shard as a run scores it: no two runs get the same last bits."""
    pairs = pa.table(
        {
            "query_id": [f"q{shard}"] * PAIRS,
            "query_key": pa.array([shard] * PAIRS, pa.uint64()),
            "doc_id": [f"d{number}" for number in range(PAIRS)],
            "truncated": [False] * PAIRS,
            "length": pa.array([5] * PAIRS, pa.int32()),
            "logit": pa.array(np.arange(PAIRS) + run / 1024, pa.float32()),
        }
    )
    rejected = LAYOUT.canonical_schema().empty_table()
    return ScoredShard(shard, pairs, rejected, 0.0)


def driver(store: Store, number: int, run: Run, mutation: Mutation) -> str:
    """What `rankmill.batch.job.run` does, a request at a time."""
    output.refuse_foreign(store, RECORD)
    if store.read_if_present(output.SUCCESS) is not None:
        return "already complete"
    output.claim(store, RECORD)
    lease = acquire(store, LEASE_SECONDS, clock=lambda: run.now, sleep=run.sleep)
    done = output.finished_shards(store)
    for shard in range(SHARDS):
        if shard not in done:
            write_shard(scored(shard, number), store, OPTIONS)
            lease.beat()
            lease.check()
    records = output.commit_records(store)
    receipts = output.receipts_in(records, store)
    assert receipts.keys() == set(range(SHARDS))
    body = manifest.to_json(RECORD.fingerprint, receipts, records)
    success = output.success_body(RECORD, total(receipts.values()), hashlib.sha256(body).hexdigest())
    if mutation.success_first:
        store.create(output.SUCCESS, success)
    manifest.publish(store, body)
    store.create(output.SUCCESS, success)
    lease.release()
    return "complete"


class Unchecked(MemoryStore):
    """A store that does not know its own objects again."""

    def _is_mine(self, key: str, token: str) -> bool:
        super()._is_mine(key, token)
        return False


class Machine(RuleBasedStateMachine):
    """Any history of up to three runs."""

    mutation = Mutation()

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(conditional=self.mutation.conditional)
        self.runs: list[Run] = []
        self.started = self.seen = 0

    @property
    def live(self) -> list[Run]:
        return [run for run in self.runs if run.alive]

    def start(self) -> Run:
        self.started += 1
        number = self.started
        kind = MemoryStore if self.mutation.checks_token else Unchecked
        run = Run(lambda run: driver(kind(self.memory, run), number, run, self.mutation))
        self.runs.append(run)
        return run

    @precondition(lambda self: len(self.live) < 3)
    @rule()
    def start_a_run(self) -> None:
        self.start()

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 2), fate=st.sampled_from(FATES))
    def one_request(self, which: int, fate: Fate) -> None:
        self.live[which % len(self.live)].step(fate)

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 2), requests=st.integers(1, 15))
    def some_requests(self, which: int, requests: int) -> None:
        run = self.live[which % len(self.live)]
        for _ in range(requests):
            run.step()
            self.a_reader_sees_all_or_nothing()

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 2))
    def kill(self, which: int) -> None:
        self.live[which % len(self.live)].kill()

    @precondition(lambda self: self.memory.late)
    @rule(which=st.integers(0, 9))
    def something_arrives_late(self, which: int) -> None:
        with suppress(FileNotFoundError):  # of a read, which nobody waits for any longer
            self.memory.late.pop(which % len(self.memory.late))()

    @rule(fates=st.lists(st.sampled_from(FATES), min_size=20, max_size=40))
    def a_run_that_is_alone_completes_the_job(self, fates: list[Fate]) -> None:
        for run in self.live:
            run.kill()
        last = self.start()
        for fate in fates:
            last.step(fate)
            self.a_reader_sees_all_or_nothing()
        for _ in range(500):
            last.step()
        assert last.outcome in {"complete", "already complete"}, last.outcome
        assert output.SUCCESS in self.memory.objects
        self.runs.clear()

    @invariant()
    def a_reader_sees_all_or_nothing(self) -> None:
        if self.seen != self.memory.writes:
            self.seen = self.memory.writes
            refuse_partial_result({key: body for key, (body, _) in self.memory.objects.items()})

    @invariant()
    def nothing_is_written_twice(self) -> None:
        assert self.memory.overwritten == []

    @invariant()
    def runs_end_as_they_should(self) -> None:
        for run in self.runs:
            ended = run.outcome
            assert ended is None or isinstance(ended, str | KilledError | OutputBusyError), repr(ended)

    def teardown(self) -> None:
        for run in self.live:
            run.kill()


def explore(mutation: Mutation, examples: int) -> None:
    """Look for a history that breaks a promise."""
    run_state_machine_as_test(
        type("Mutant", (Machine,), {"mutation": mutation}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # the history that is found need not be the shortest
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
        ),
    )


def test_two_drivers_and_a_zombie_break_no_promise() -> None:
    """F1, F7, F10, F11, F20: killed, fenced and late in any order, with answers lost, a reader looking on."""
    explore(Mutation(), 50)


@pytest.mark.slow
def test_two_drivers_and_a_zombie_break_no_promise_for_long() -> None:
    explore(Mutation(), 1000)


@pytest.mark.parametrize(
    ("mutation", "found"),
    [
        pytest.param(
            Mutation(conditional=False), "overwritten|is not what the manifest says|==|speaks", id="plain PUT"
        ),
        pytest.param(Mutation(success_first=True), "_SUCCESS without a manifest", id="_SUCCESS first"),
        pytest.param(Mutation(checks_token=False), "is held by a live run", id="no token check"),
    ],
)
def test_what_the_protocol_does_is_needed(mutation: Mutation, found: str) -> None:
    """Negative controls."""
    with pytest.raises(AssertionError, match=found):
        explore(mutation, 200)
