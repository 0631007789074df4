"""An evaluation as one self-contained HTML page: no scripts, no fonts, no network; light and dark."""

from html import escape

import numpy as np
from numpy.typing import NDArray

from rankmill.evaluation.compare import CONFIDENCE, RESAMPLES, Comparison
from rankmill.evaluation.evaluate import Evaluation
from rankmill.evaluation.report import direction, notes

_LISTED = 10  # most improved and most hurt queries
_WIDTH, _HEIGHT = 720, 180  # of the chart, in its own units
_MAX_BARS = 360  # at two units a bar; longer lists of queries are thinned evenly

_STYLE = """
:root{color-scheme:light dark;
--ink:#1b1f24;--soft:#667;--line:#d9dee5;--paper:#fff;--up:#1f8a4c;--down:#c0392b;--band:#f5f7fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#98a2b0;--line:#343b45;--paper:#15181c;--up:#4cc27d;--down:#ef6b5e;--band:#1d2127}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.25rem}h2{font-size:1.1rem;margin-top:2rem}p,li{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right;overflow-wrap:anywhere}
th:first-child,td:first-child{text-align:left}thead th{color:var(--soft);font-weight:600}
tbody tr:hover{background:var(--band)}
.up{color:var(--up)}.down{color:var(--down)}svg{width:100%;height:auto;display:block;margin:.5rem 0}
.axis{stroke:var(--soft);stroke-width:1}rect.up{fill:var(--up)}rect.down{fill:var(--down)}rect.same{fill:var(--soft)}
.scroll{overflow-x:auto}text{fill:var(--soft);font-size:11px}
"""


def page(result: Evaluation | Comparison, title: str, texts: dict[str, str] | None = None) -> str:
    """The whole document.

    Args:
        result: what to show.
        title: heading, for example the names of the two runs.
        texts: text by query id, shown beside the id where known.
    """
    known = texts or {}
    body = _comparison(result, known) if isinstance(result, Comparison) else _evaluation(result, known)
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes(result))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1><ul>{listed}</ul>\n{body}</body></html>\n"
    )


def _evaluation(evaluation: Evaluation, texts: dict[str, str]) -> str:
    rows = [[escape(name), f"{mean:.4f}"] for name, mean in zip(evaluation.measures, evaluation.means, strict=True)]
    values = evaluation.values[0]
    worst = np.argsort(values, kind="stable")[:_LISTED]
    hardest = [[_query(evaluation.query_ids[query], texts), f"{values[query]:.4f}"] for query in worst]
    name = escape(evaluation.measures[0])
    return (
        f"<h2>Means</h2>{_table(['measure', 'mean'], rows)}"
        f"<h2>Lowest {name}</h2>{_table(['query', evaluation.measures[0]], hardest)}"
    )


def _comparison(comparison: Comparison, texts: dict[str, str]) -> str:
    rows = []
    for row in comparison.differences:
        colour = {1: "up", -1: "down", 0: ""}[direction(row)]
        rows.append(
            [
                escape(row.measure),
                f"{row.baseline:.4f}",
                f"<b>{row.run:.4f}</b>",
                f'<span class="{colour}">{row.difference:+.4f}</span>',
                f"[{row.low:+.4f}, {row.high:+.4f}]",
                f"{row.better} / {row.worse} / {row.equal}",
            ]
        )
    headings = ["measure", "baseline", "run", "difference", f"{CONFIDENCE:.0%} interval", "better / worse / equal"]
    parts = [
        f"<h2>Means</h2>{_table(headings, rows)}",
        (
            f"<p>Intervals: paired bootstrap over queries, {RESAMPLES:,} resamples, percentiles. "
            "An interval that holds 0 means that these queries do not tell the two apart.</p>"
        ),
    ]
    for index, measure in enumerate(comparison.run.measures):
        differences = comparison.run.values[index] - comparison.baseline.values[index]
        parts.append(f"<h2>{escape(measure)}, query by query</h2>{_chart(differences, comparison.run.query_ids)}")
    parts.append(_extremes(comparison, texts))
    return "\n".join(parts)


def _extremes(comparison: Comparison, texts: dict[str, str]) -> str:
    """The queries with the largest gains and losses in the first measure."""
    run, baseline = comparison.run.values[0], comparison.baseline.values[0]
    differences = run - baseline
    order = np.argsort(-differences, kind="stable")
    measure = comparison.run.measures[0]
    parts = []
    for heading, chosen in (
        ("Most improved", [query for query in order[:_LISTED] if differences[query] > 0]),
        ("Most hurt", [query for query in order[::-1][:_LISTED] if differences[query] < 0]),
    ):
        rows = [
            [
                _query(comparison.run.query_ids[query], texts),
                f"{baseline[query]:.4f}",
                f"{run[query]:.4f}",
                f'<span class="{"up" if differences[query] > 0 else "down"}">{differences[query]:+.4f}</span>',
            ]
            for query in chosen
        ]
        content = _table(["query", "baseline", "run", "difference"], rows) if rows else "<p>None.</p>"
        parts.append(f"<h2>{heading} ({escape(measure)})</h2>{content}")
    return "".join(parts)


def _chart(differences: NDArray[np.float64], query_ids: tuple[str, ...]) -> str:
    """One bar a query, gains first, as inline SVG; a bar's tooltip names its query."""
    order = np.argsort(-differences, kind="stable")
    if len(order) > _MAX_BARS:
        order = order[np.linspace(0, len(order) - 1, _MAX_BARS).astype(np.int64)]
    highest = float(np.abs(differences).max()) or 1.0
    middle, step = _HEIGHT / 2, _WIDTH / len(order)
    bars = []
    for position, query in enumerate(order):
        value = float(differences[query])
        height = max(abs(value) / highest * (middle - 12), 0.5)
        top = middle - height if value > 0 else middle
        colour = "up" if value > 0 else "down" if value < 0 else "same"
        bars.append(
            f'<rect class="{colour}" x="{position * step:.2f}" y="{top:.2f}" width="{max(step * 0.85, 0.5):.2f}" '
            f'height="{height:.2f}"><title>{escape(query_ids[query])}: {value:+.4f}</title></rect>'
        )
    thinned = f"; {len(order)} of {len(differences):,} queries shown" if len(order) < len(differences) else ""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="differences by query{thinned}">'
        f'{"".join(bars)}<line class="axis" x1="0" x2="{_WIDTH}" y1="{middle}" y2="{middle}"/>'
        f'<text x="0" y="10">+{highest:.2f}</text><text x="0" y="{_HEIGHT - 2}">-{highest:.2f}{thinned}</text></svg>'
    )


def _table(headings: list[str], rows: list[list[str]]) -> str:
    """A table; cells are HTML already, headings are text."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _query(query_id: str, texts: dict[str, str]) -> str:
    text = texts.get(query_id)
    return escape(query_id) if text is None else f"{escape(text)} <small>({escape(query_id)})</small>"
