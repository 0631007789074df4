"""Names of measures, as `ir_measures` writes them: `nDCG@10`, `RR@10`, `P(rel=2)@5`, `R@100`."""

import difflib
import re
from dataclasses import dataclass

import ir_measures
from ir_measures import measures as known_measures

from rankmill.errors import UsageError


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure that can be computed here."""

    name: str
    """Canonical, unique: `nDCG@10`."""
    definition: ir_measures.Measure


def parse_measures(text: str) -> tuple[Measure, ...]:
    """The measures named in `text`, separated by blanks, in order; repeated ones once.

    Raises:
        UsageError: no names, unknown names (with the nearest known ones), wrong parameters, or measures that need a
            program which is not installed; all of them.
    """
    names = text.split()
    if not names:
        raise UsageError('No measure is named. Try --measures "nDCG@10 RR@10".')
    measures: dict[str, Measure] = {}
    problems: list[str] = []
    for name in names:
        parsed = _parse(name)
        if isinstance(parsed, str):
            problems.append(parsed)
        else:
            measures.setdefault(parsed.name, parsed)
    if problems:
        raise UsageError(" ".join(problems))
    return tuple(measures.values())


def _parse(name: str) -> Measure | str:
    """The measure, or a sentence that says what is wrong with its name."""
    try:
        definition = ir_measures.parse_measure(name)
        is_supported: bool = ir_measures.DefaultPipeline.supports(definition)  # type: ignore[no-untyped-call]
    except NameError:
        return f"{name!r} is not a measure.{_suggestion(name)}"
    except (ValueError, AssertionError, KeyError, TypeError):  # how ir_measures rejects parameters
        return f"{name!r} lacks a parameter or has a wrong one.{_parameters(name)}"
    if definition.params.get("cutoff", 1) < 1:
        return f"{name!r} looks at no result at all; the number after @ must be at least 1."
    if not is_supported:
        return f"{name!r} needs a program or package that is not installed; see https://ir-measur.es."
    return Measure(str(definition), definition)


def _parameters(name: str) -> str:
    base = re.split(r"[@(]", name)[0]
    known = known_measures.registry.get(base)
    if known is None:
        return " Write it like nDCG@10 or P(rel=2)@5."
    required = [key for key, info in known.SUPPORTED_PARAMS.items() if info.required]
    optional = [key for key, info in known.SUPPORTED_PARAMS.items() if not info.required]
    return (
        f" {base} must have {', '.join(required) or 'nothing'} and may have {', '.join(optional) or 'nothing'}"
        f" (cutoff is the number after @: nDCG@10, P(rel=2)@5)."
    )


def _suggestion(name: str) -> str:
    known = list(known_measures.registry)
    base, at, cutoff = name.partition("@")
    by_lower = {candidate.lower(): candidate for candidate in reversed(known)}  # nDCG stands before its alias NDCG
    near = difflib.get_close_matches(base.lower(), by_lower, n=1)
    if near:
        return f" Did you mean {by_lower[near[0]]}{at}{cutoff}?"
    return f" Known are {', '.join(sorted(candidate for candidate in known if candidate.isascii()))}."
