"""`--batch-tokens auto`: a few seconds of measuring, once per machine, model and way to run it; then remembered."""

import json
import logging
import os
import time
from pathlib import Path

import numpy as np

from rankmill.scoring.cache import cache_folder
from rankmill.scoring.engines.engine import Engine
from rankmill.scoring.packing import pack
from rankmill.types import EncodedPairs

log = logging.getLogger(__name__)

_BUDGETS = {"cpu": (512, 1_024, 2_048, 4_096, 8_192), "cuda": (8_192, 16_384, 32_768, 65_536, 131_072, 262_144)}
_GOOD_ENOUGH = 0.97
"""The smallest budget within 3 % of the fastest is taken: it needs less memory, and timings are not exact."""
_ROUNDS = 2
_MEAN_TOKENS, _SPREAD = 150.0, 0.6  # of a log-normal distribution, roughly that of passages


def good_budget(engine: Engine, key: str, max_length: int) -> int:
    """A good number of tokens per micro-batch, measured or remembered.

    Args:
        engine: ready to run.
        key: of everything that the answer depends on: model, precision, threads, device.
        max_length: most tokens of a pair.
    """
    path = cache_folder() / "batch_tokens" / f"{key}.json"
    remembered = _read(path)
    if remembered is not None:
        return remembered
    rates = measure(engine, max_length)
    best = min(budget for budget, rate in rates.items() if rate >= _GOOD_ENOUGH * max(rates.values()))
    measured = ", ".join(f"{budget:,}: {rate:,.0f}" for budget, rate in rates.items())
    log.info("--batch-tokens auto: %s tokens per batch (tokens/s by budget: %s)", f"{best:,}", measured)
    _remember(path, best)
    return best


def measure(engine: Engine, max_length: int) -> dict[int, float]:
    """Tokens per second by budget, the better of two interleaved rounds each; a budget that does not fit is left out.

    Returns:
        At least the smallest budget.
    """
    rates: dict[int, float] = {}
    for _ in range(_ROUNDS):
        for budget in _BUDGETS[engine.device]:
            pairs = _sample(2 * budget if engine.device == "cuda" else max(budget, 4_096), max_length)
            try:
                seconds = _seconds(engine, pairs, budget)
            except Exception as error:
                if not engine.is_out_of_memory(error):
                    raise
                rates.pop(budget, None)
                break
            rates[budget] = max(rates.get(budget, 0.0), len(pairs.token_ids) / seconds)
    return rates or {_BUDGETS[engine.device][0]: 0.0}


def _seconds(engine: Engine, pairs: EncodedPairs, budget: int) -> float:
    batches = pack(pairs.lengths, budget)
    engine.collect([engine.run(pairs, batches[0])])  # the first batch of a shape is slow
    started = time.perf_counter()
    engine.collect([engine.run(pairs, rows) for rows in batches])
    return time.perf_counter() - started


def _sample(tokens: int, max_length: int) -> EncodedPairs:
    """Pairs of about `tokens` tokens in all, with lengths like those of passages."""
    draw = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        length = draw.lognormal(np.log(_MEAN_TOKENS) - _SPREAD**2 / 2, _SPREAD)
        lengths.append(int(np.clip(length, min(8, max_length), max_length)))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return EncodedPairs(
        token_ids=draw.integers(5, 50, int(offsets[-1])).astype(np.int32),
        offsets=offsets,
        document_starts=np.minimum(4, np.asarray(lengths)).astype(np.int32),
        truncated=np.zeros(len(lengths), dtype=np.bool_),
    )


def _read(path: Path) -> int | None:
    try:
        found = json.loads(path.read_bytes())["batch_tokens"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and found > 0 else None


def _remember(path: Path, budget: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"batch_tokens": budget}))
        partial.replace(path)
    except OSError as error:
        log.warning("--batch-tokens auto: the result cannot be kept in %s: %s", path, error)
