"""What is known of a job before anything is written: its rows, its model, its shards. `rankmill plan` ends here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import orjson

from rankmill.batch import output, plan_file, scan
from rankmill.batch.places import refuse_places
from rankmill.batch.plan import Plan, default_shard_pairs, make_plan
from rankmill.batch.retry import Retry
from rankmill.errors import UsageError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.rerank import RerankSettings
from rankmill.storage.store import Store
from rankmill.tables.locate import InputFile
from rankmill.tables.runs import Runs
from rankmill.tables.schema import OUTPUT_COLUMNS, Layout

T = TypeVar("T")
R = TypeVar("R")


class Mapper(Protocol):
    """Runs a function over items, anywhere, in any order."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield the results."""


@dataclass(frozen=True, slots=True)
class Understood:
    """An input and a model that fit each other, as far as files, footers and first lines tell."""

    inspected: scan.Inspected
    card: ModelCard
    scorer: ScorerOptions
    """What every process of the job shall load: model, commit and precision are decided."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of a job, as a value, as a file, and as the job record tells of it."""

    plan: Plan
    file: bytes
    described: Mapping[str, Any]


def understand(settings: RerankSettings) -> Understood:
    """Check the settings, the input and the model against each other; neither Ray nor weights are loaded.

    Raises:
        UsageError, InputError, ModelError: something cannot be used; all culprits of a kind are named.
        StorageError: a store refused or cannot be reached.
    """
    refuse_places(settings)
    repeated = sorted({name for name in settings.keep if settings.keep.count(name) > 1})
    if repeated:
        raise UsageError(f"--keep names {', '.join(repeated)} more than once.")
    already = [name for name in settings.keep if name in OUTPUT_COLUMNS or name == "candidates"]
    if already:
        raise UsageError(f"--keep {','.join(already)}: the output has a column of that name already.")
    inspected = scan.inspect(settings) if settings.queries is None else scan.inspect_run(settings)
    options = _scorer_options(settings)
    card = check_model(options)
    pinned = replace(options, revision=card.revision)
    if card.folder is not None and card.revision is None and settings.model != "builtin":
        pinned = replace(pinned, model=str(card.folder))  # a relative path may mean something else to a worker
    return Understood(inspected, card, pinned)


def cut(
    settings: RerankSettings, inspected: scan.Inspected, mapper: Mapper, retry: Retry | None = None
) -> tuple[Plan, int]:
    """Find where the queries lie, and cut the input into shards.

    Args:
        settings: of the job.
        inspected: its input.
        mapper: looks at one file each.
        retry: plan for no other queries than these.

    Returns:
        The plan, and the shard size that was aimed at.

    Raises:
        InputError: a file is damaged.
        StorageError: a store refused or cannot be reached.
    """
    files, layout = inspected.files, inspected.layout
    found = dict(mapper.map(partial(_numbered_runs, files, layout), range(len(files))))
    looks = [found[index] for index in range(len(files))]
    if settings.bad_files == "reject":
        damaged = {index: look for index, look in found.items() if isinstance(look, str)}
        files = tuple(replace(file, problem=damaged.get(n, file.problem)) for n, file in enumerate(files))
        looks = [scan.whole_file(files[n]) if n in damaged else look for n, look in enumerate(looks)]
    scan.refuse(settings.input, [look for look in looks if isinstance(look, str)])
    runs = [look for look in looks if not isinstance(look, str)]
    everything = sum(run.total_pairs for run in runs)
    if retry is not None:
        runs = retry.only(files, runs)
    pairs = sum(run.total_pairs for run in runs)
    texts = inspected.texts
    text_bytes = inspected.text_bytes if texts is None else int(texts.corpus.mean_bytes * everything)
    size = settings.shard_pairs or default_shard_pairs(pairs, text_bytes * pairs // max(everything, 1))
    return make_plan(files, layout, runs, size, gather_all=retry is not None or texts is not None), size


def planned(
    store: Store, settings: RerankSettings, inspected: scan.Inspected, mapper: Mapper, retry: Retry | None
) -> Planned:
    """The plan of the run before this one, where the output has it and it says all; else what `cut` finds.

    Args:
        store: the output; the job in it, if there is one, is this job.
        settings: of the job.
        inspected: its input.
        mapper: looks at one file each.
        retry: plan for no other queries than these.

    Raises:
        InputError, StorageError: as `cut` does.
    """
    known = _recorded(store, inspected)
    if known is not None:
        return known
    plan, shard_pairs = cut(settings, inspected, mapper, retry)
    file = plan_file.to_parquet(plan)
    return Planned(plan, file, output.describe_plan(plan, shard_pairs, file))


def _recorded(store: Store, inspected: scan.Inspected) -> Planned | None:
    """What an earlier run wrote down; None where its plan is not there, is not the one of its record, or says less."""
    record, file = store.read_if_present(output.JOB), store.read_if_present(plan_file.PLAN)
    if record is None or file is None:
        return None
    described = orjson.loads(record)["plan"]
    try:
        whole = plan_file.digest(file) == described["digest"]
    except ValueError:
        return None
    if not whole or described["rejected_files"]:  # why a file cannot be read, only looking at it says
        return None
    plan = plan_file.to_plan(file, inspected.files, inspected.layout)
    return None if plan is None else Planned(plan, file, described)


def _scorer_options(settings: RerankSettings) -> ScorerOptions:
    """The precision is decided here, for workers see other machines."""
    gpus = settings.gpus_per_worker
    device = "auto" if gpus is None else "cuda" if gpus else "cpu"  # of the workers, whatever this machine has
    return concrete(replace(ScorerOptions.of(settings), device=device))


def _numbered_runs(files: tuple[InputFile, ...], layout: Layout, index: int) -> tuple[int, Runs | str]:
    return index, scan.find_runs(files[index], layout)
