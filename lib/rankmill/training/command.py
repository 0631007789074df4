"""What the command line calls: settings in, a summary on stdout, an exit code back."""

import sys

from rankmill.settings.train import CandidatesSettings, MeasureSettings, TrainingListsSettings, TrainSettings


def train_command(settings: TrainSettings) -> int:
    """Train and say what came of it; the exit code is 0, errors are raised."""
    from rankmill.training.train import train  # noqa: PLC0415 - torch takes seconds to import, `--help` need not wait

    summary = train(settings)
    sys.stdout.write(f"{summary.as_json() if settings.as_json else summary.as_text()}\n")
    return 0


def training_lists_command(settings: TrainingListsSettings) -> int:
    """Build training lists and say how many; the exit code is 0, errors are raised."""
    from rankmill.training.build import build_training_lists  # noqa: PLC0415 - as above

    summary = build_training_lists(settings)
    for name, count in summary.lists.items():
        sys.stdout.write(f"{count:>9,} lists  {name}\n")
    sys.stdout.write(f"{summary.pairs:>9,} pairs  {summary.path}\n")
    return 0


def measure_command(settings: MeasureSettings) -> int:
    """Measure a model and show its gains; the exit code is 0, errors are raised."""
    from rankmill.training.measure import measure  # noqa: PLC0415 - as above

    sys.stdout.write("".join(f"{gain.as_text()}\n" for gain in measure(settings)))
    return 0


def candidates_command(settings: CandidatesSettings) -> int:
    """Write candidates and say how many; the exit code is 0, errors are raised."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    from rankmill.training.candidates import candidates  # noqa: PLC0415

    table = candidates(settings.collections, settings.queries, settings.depth)
    pq.write_table(table, settings.output)
    sys.stdout.write(f"{len(table):,} pairs  {settings.output}\n")
    return 0
