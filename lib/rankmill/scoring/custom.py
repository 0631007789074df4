"""A scorer of one's own: `--model python:package.module:Name`.

`Name` is either

* a class that can be constructed without arguments and has `score(queries, texts)`, or
* a function `(queries, texts)`.

Both take two sequences of equally many strings, query i belonging to text i, and return as many finite numbers in the
same order; higher is more relevant. They are called with up to a shard of pairs at once: batching is their business. A
class is constructed once per worker. The module must be importable on every worker.

One whose score of a document depends on the other documents says so with an attribute `listwise = True` of the class or
function. It is then called with `(query, documents)` instead, once for each query, with all its documents in the order
of the input, and returns one number per document; a query's documents are never shared out over several calls.

Results are kept under a fingerprint of the name and of the module's source file. Whatever else decides the scores, such
as the weights that a class loads, belongs in an attribute `fingerprint` of the class or function: a string.
"""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import ModelError
from rankmill.scoring.card import ModelCard, text_card
from rankmill.scoring.card_scorer import CardScorer
from rankmill.scoring.files import sha256
from rankmill.scoring.list_scorer import ListScorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.text_encoder import TextEncoder, checked_scores, decode, refuse_settings
from rankmill.types import EncodedPairs

PREFIX = "python:"
_NAME = re.compile(r"python:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)

Score = Callable[[Sequence[str], Sequence[str]], Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Custom:
    """A name whose module is there; it has not been imported."""

    model: str
    module: str
    attribute: str
    source: Path | None
    """The module's file; None for one that has none."""

    def card(self, precision: str) -> ModelCard:  # noqa: ARG002 - its precision is its own
        """Describe it; imports the module.

        Raises:
            ModelError: it has no such attribute, or not one that scores.
        """
        target = self._import()
        identity = {
            "model": self.model,
            "source": None if self.source is None else sha256(self.source),
            "fingerprint": self._stated(target, "fingerprint", str),
        }
        listwise = bool(self._stated(target, "listwise", bool))
        return text_card(self.model, kind="python", architecture=self.attribute, identity=identity, listwise=listwise)

    def encoder(self) -> TextEncoder:
        """What makes bytes of texts; does not import the module."""
        return TextEncoder()

    def load(self, options: ScorerOptions) -> "ListScorer | CustomScorer":
        """Construct it.

        Raises:
            ModelError: it cannot be imported, constructed or called.
        """
        target = self._import()
        if inspect.isclass(target):
            try:
                target = target()
            except Exception as error:
                raise ModelError(
                    f"The scorer {self.model!r} cannot be constructed without arguments: {type(error).__name__}: "
                    f"{error}."
                ) from error
        card, score = self.card(options.precision), getattr(target, "score", target)
        return (ListScorer if card.listwise else CustomScorer)(card, self.encoder(), score)

    def _import(self) -> Any:
        try:
            module = importlib.import_module(self.module)
        except Exception as error:
            raise ModelError(
                f"The module of the scorer {self.model!r} cannot be imported: {type(error).__name__}: {error}."
            ) from error
        target = getattr(module, self.attribute, None)
        if target is None:
            raise ModelError(f"The module {self.module!r} ({self.source}) has no {self.attribute!r}.")
        scores = callable(getattr(target, "score", None)) if inspect.isclass(target) else callable(target)
        if not scores:
            raise ModelError(
                f"{self.model!r} is neither a class with a method score(queries, texts) nor a function "
                "(queries, texts) that returns one number per pair. With listwise = True, both take "
                "(query, documents)."
            )
        return target

    def _stated(self, target: Any, name: str, kind: type[T]) -> T | None:
        stated = getattr(target, name, None)
        if stated is not None and not isinstance(stated, kind):
            raise ModelError(
                f"The attribute {name} of {self.model!r} is a {type(stated).__name__}; it must be "
                f"{'a string' if kind is str else 'True or False'} on the class or function itself, because it is read "
                "before anything is constructed."
            )
        return stated


class CustomScorer(CardScorer):
    """Calls somebody's own scorer, and checks what comes back.

    Args:
        card: what it is.
        encoder: what makes bytes of texts.
        score: takes queries and texts, returns one number per pair.
    """

    def __init__(self, card: ModelCard, encoder: TextEncoder, score: Score) -> None:
        super().__init__(card, encoder)
        self._score = score

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Call the scorer, once, with all pairs; its own exceptions come through as they are.

        Returns:
            Float32, shape (n,), input order. Empty in, empty out.

        Raises:
            ModelError: it returned something else than one number per pair.
            NonFiniteScoreError: naming the pairs whose score is NaN or infinite.
        """
        if not len(pairs):
            return np.zeros(0, dtype=np.float32)
        queries, texts = decode(pairs)
        return checked_scores(self.card.model, self._score(queries, texts), len(pairs))


def read(options: ScorerOptions) -> Custom:
    """Find the module of a `python:` name, without importing it.

    Raises:
        ModelError: the name is malformed, or there is no such module.
        UsageError: a setting has no meaning for it.
    """
    matched = _NAME.fullmatch(options.model)
    if matched is None:
        raise ModelError(
            f"The model {options.model!r} does not name a scorer; write python:package.module:Class, with a colon "
            "between the module and its class or function."
        )
    refuse_settings(options)
    module, attribute = matched.groups()
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # noqa: BLE001 - finding a.b runs a/__init__.py, which may do anything
        spec, reason = None, f" ({type(error).__name__}: {error})"
    else:
        reason = ""
    if spec is None:
        raise ModelError(
            f"There is no module {module!r} for the model {options.model!r}{reason}. It must be importable on every "
            "machine that takes part: install its package, or put its folder on PYTHONPATH."
        )
    source = Path(spec.origin) if spec.has_location and spec.origin else None
    return Custom(options.model, module, attribute, source if source is not None and source.is_file() else None)
