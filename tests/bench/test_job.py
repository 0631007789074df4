"""What rounds of the whole job are put together to."""

from rankmill.bench.job import Run, summary


def test_medians_paired_ratios_and_the_highest_peak() -> None:
    runs = [
        Run(pairs=100, pairs_per_second=90, tokens_per_second=900, scoring_share=0.9, driver_peak_bytes=5),
        Run(pairs=100, pairs_per_second=40, tokens_per_second=400, scoring_share=0.5, driver_peak_bytes=7),
        Run(pairs=100, pairs_per_second=70, tokens_per_second=700, scoring_share=0.8, driver_peak_bytes=6),
    ]
    found = summary(runs, [100, 50, 100])
    assert (found.pairs_per_second, found.tokens_per_second, found.scoring_share) == (70, 700, 0.8)
    assert found.to_bare == 0.8  # of .9, .8 and .7: the slow round was slow for both
    assert found.driver_peak_bytes == 7
