"""How an evaluation is shown: a table on a terminal, a summary for machines. `html.py` makes the page."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from rankmill.evaluation.compare import CONFIDENCE, Comparison, Difference
from rankmill.evaluation.evaluate import Evaluation
from rankmill.wording import counted


def table(result: Evaluation | Comparison) -> Table:
    """Means, and with a baseline also differences, their intervals and the number of queries better and worse."""
    if isinstance(result, Comparison):
        return _comparison_table(result)
    shown = _empty_table(result)
    shown.add_column("mean", justify="right")
    for measure, mean in zip(result.measures, result.means, strict=True):
        shown.add_row(Text(measure), f"{mean:.4f}")
    return shown


def _comparison_table(comparison: Comparison) -> Table:
    shown = _empty_table(comparison)
    for heading in ("baseline", "run", "change", f"{CONFIDENCE:.0%} interval", "better/worse/equal"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.differences:
        style = {1: "green", -1: "red", 0: ""}[direction(row)]
        shown.add_row(
            Text(row.measure),
            f"{row.baseline:.4f}",
            Text(f"{row.run:.4f}", style="bold"),
            Text(f"{row.difference:+.4f}", style=style),
            Text(f"{row.low:+.4f} {row.high:+.4f}"),
            f"{row.better} / {row.worse} / {row.equal}",
        )
    return shown


def _empty_table(result: Evaluation | Comparison) -> Table:
    caption = Text(" · ".join(notes(result)))  # Text, so that brackets in ids are not markup
    shown = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left", pad_edge=False)
    shown.add_column("measure", no_wrap=True)
    return shown


def direction(row: Difference) -> int:
    """1 where the whole interval is above 0, -1 where it is below, 0 where it holds 0."""
    if row.low > 0:
        return 1
    return -1 if row.high < 0 else 0


def notes(result: Evaluation | Comparison) -> list[str]:
    """What a reader of the numbers must know: how many queries, and which were missing where."""
    if isinstance(result, Comparison):
        return [
            *notes(result.run),
            *(note.replace("the run", "the baseline") for note in notes(result.baseline)[1:]),
        ]
    lines = [f"{counted(len(result.query_ids), 'judged query', 'judged queries')}"]
    if result.without_results:
        missing = counted(len(result.without_results), "judged query", "judged queries")
        lines.append(f"{missing} without results in the run score 0 ({_examples(result.without_results)})")
    if result.without_judgements:
        extra = counted(len(result.without_judgements), "query", "queries")
        lines.append(f"{extra} of the run without judgements left out ({_examples(result.without_judgements)})")
    if result.repeated:
        lines.append(f"{counted(result.repeated, 'repeated document', 'repeated documents')} of the run left out")
    return lines


def summary(result: Evaluation | Comparison) -> dict[str, Any]:
    """The same numbers for machines: plain lists, strings and floats."""
    run = result.run if isinstance(result, Comparison) else result
    found: dict[str, Any] = {
        "queries": len(run.query_ids),
        "without_results": list(run.without_results),
        "without_judgements": list(run.without_judgements),
        "repeated": run.repeated,
        "measures": {name: float(mean) for name, mean in zip(run.measures, run.means, strict=True)},
    }
    if isinstance(result, Comparison):
        found["baseline"] = {
            "without_results": list(result.baseline.without_results),
            "without_judgements": list(result.baseline.without_judgements),
            "repeated": result.baseline.repeated,
            "measures": {row.measure: row.baseline for row in result.differences},
        }
        found["differences"] = {
            row.measure: {
                "difference": row.difference,
                "low": row.low,
                "high": row.high,
                "confidence": CONFIDENCE,
                "better": row.better,
                "worse": row.worse,
                "equal": row.equal,
            }
            for row in result.differences
        }
    return found


def _examples(ids: tuple[str, ...]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
