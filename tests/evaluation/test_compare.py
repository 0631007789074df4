"""The bootstrap interval behaves like one; the table, the page and the summary say the same."""

import html.parser
import json
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from rich.console import Console

from rankmill.evaluation.compare import bootstrap_interval, compare
from rankmill.evaluation.evaluate import Evaluation
from rankmill.evaluation.html import page
from rankmill.evaluation.report import summary, table


def evaluation(values: list[list[float]], **missing: tuple[str, ...]) -> Evaluation:
    return Evaluation(
        measures=("nDCG@10", "RR@10")[: len(values)],
        query_ids=tuple(f"q{number}" for number in range(len(values[0]))),
        values=np.array(values),
        without_results=missing.get("without_results", ()),
        without_judgements=missing.get("without_judgements", ()),
    )


def test_counts_and_means() -> None:
    baseline = evaluation([[0.5, 0.5, 0.5, 0.5]])
    found = compare(evaluation([[1.0, 0.6, 0.5, 0.0]]), baseline).differences[0]
    assert (found.better, found.worse, found.equal) == (2, 1, 1)
    assert found.difference == pytest.approx(0.525 - 0.5)
    assert found.low < found.difference < found.high


def test_a_run_against_itself_differs_by_nothing() -> None:
    same = evaluation([[0.1, 0.7, 0.3]])
    found = compare(same, same).differences[0]
    assert (found.difference, found.low, found.high, found.equal) == (0.0, 0.0, 0.0, 3)


def test_interval_agrees_with_the_normal_approximation() -> None:
    differences = np.random.default_rng(7).normal(0.05, 0.2, size=(2, 400))
    low, high = bootstrap_interval(differences, seed=1)
    half = 1.96 * differences.std(axis=1) / np.sqrt(400)
    assert low == pytest.approx(differences.mean(axis=1) - half, abs=0.002)
    assert high == pytest.approx(differences.mean(axis=1) + half, abs=0.002)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(generator.normal(0.1, 0.3, size=(1, 60)), seed, resamples=500)
        covered += bool(low[0] <= 0.1 <= high[0])
    assert 180 <= covered <= 199


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float64, (1, 12), elements=st.floats(-1, 1)), st.integers(0, 2**32))
def test_interval_lies_within_the_differences_and_is_repeatable(differences: NDArray[np.float64], seed: int) -> None:
    low, high = bootstrap_interval(differences, seed, resamples=200)
    assert differences.min() - 1e-12 <= low[0] <= high[0] <= differences.max() + 1e-12
    again = bootstrap_interval(differences, seed, resamples=200)
    assert (low[0], high[0]) == (again[0][0], again[1][0])


def test_different_judgements_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="differ in judged queries"):
        compare(evaluation([[1.0]]), evaluation([[1.0, 0.0]]))


def render(result: object, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width, color_system=None).print(result)
    return out.getvalue()


def test_table_fits_eighty_columns_and_names_what_is_missing() -> None:
    run = evaluation([[0.9, 0.8], [1.0, 0.0]], without_results=("q[bold]1",))
    baseline = evaluation([[0.1, 0.2], [1.0, 1.0]], without_judgements=("x", "y", "z", "w"))
    text = render(table(compare(run, baseline)))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "0.1500" in text
    assert "+0.7000" in text
    assert "2 / 0 / 0" in text
    assert "…" not in text.split("2 judged queries")[0]  # nothing in the table is cut
    assert "1 judged query without results in the run score 0 (q[bold]1)" in " ".join(text.split())
    assert "4 queries of the baseline without judgements left out (x, y, z, …)" in " ".join(text.split())
    assert "0.8500" in render(table(run))


def test_summary_is_json() -> None:
    found = json.loads(json.dumps(summary(compare(evaluation([[1.0, 0.0]]), evaluation([[0.0, 0.0]])))))
    assert found["measures"] == {"nDCG@10": 0.5}
    assert found["baseline"]["measures"] == {"nDCG@10": 0.0}
    assert found["differences"]["nDCG@10"]["better"] == 1
    assert "baseline" not in summary(evaluation([[1.0]]))


class Checker(html.parser.HTMLParser):
    """Collects tags; fails on one that is closed out of order or refers to anything outside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_self_contained_and_escapes() -> None:
    evil = '<script>alert("1")</script>'
    run = Evaluation(("nDCG@10",), (evil, "q2", "q3"), np.array([[0.9, 0.1, 0.5]]), (evil,), ())
    baseline = Evaluation(("nDCG@10",), (evil, "q2", "q3"), np.array([[0.1, 0.3, 0.5]]), (), ())
    for result in (compare(run, baseline), run, compare(run, run)):
        text = page(result, title=evil, texts={"q2": "a & <b>"})
        checker = Checker()
        checker.feed(text)
        checker.close()
        assert checker.open == []
        assert "script" not in checker.seen
        assert "http" not in text
        assert "a &amp; &lt;b&gt;" in text or result != run
    text = page(compare(run, baseline), "t")
    assert text.count("<rect") == 3
    assert "Most improved" in text
    assert "+0.8000" in text


def test_page_thins_long_charts() -> None:
    values = [list(np.linspace(-1, 1, 5_000))]
    text = page(compare(evaluation(values), evaluation([[0.0] * 5_000])), "t")
    assert text.count("<rect") == 360
    assert "360 of 5,000 queries shown" in text
    assert len(text) < 100_000
