"""`rankmill models inspect`."""

import json
import sys
from dataclasses import asdict, replace
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.load import check_model, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.self_test import Check, self_test
from rankmill.settings.models import InspectSettings


def inspect(settings: InspectSettings) -> int:
    """Describe a model, test it, and print both; returns the exit code 0.

    Raises:
        ModelError: the model cannot be used, or failed its test.
        UsageError: an option does not fit the model.
    """
    options = ScorerOptions.of(settings)
    card = check_model(options)
    pinned = replace(options, revision=card.revision)  # the same commit, should the branch move in between
    checks = self_test(load_scorer(pinned), card) if settings.self_test else []
    sys.stdout.write(_json(card, checks) if settings.as_json else _text(card, checks))
    sys.stdout.flush()
    failed = [check for check in checks if check.outcome == "failed"]
    if failed:
        said = " ".join(f"{check.name}: {check.detail}" for check in failed)
        raise ModelError(
            f"The model {card.model!r} failed its self-test. {said} Do not trust its scores on this machine."
        )
    return 0


def _text(card: ModelCard, checks: list[Check]) -> str:
    facts = {name: value for name, value in asdict(card).items() if value is not None and name != "inputs"}
    shown = {name.replace("_", " "): _shown(value) for name, value in facts.items()}
    shown |= {f"test: {check.name}": f"{check.outcome}: {check.detail}" for check in checks}
    width = max(map(len, shown))
    return "".join(f"{name:<{width}}  {value}\n" for name, value in shown.items())


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _json(card: ModelCard, checks: list[Check]) -> str:
    found = asdict(card) | {"self_test": [asdict(check) for check in checks]}
    return json.dumps(found, default=str) + "\n"
