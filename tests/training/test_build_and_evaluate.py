"""From a collection to lists to a measured model, with tiny real parts."""

from pathlib import Path

import pytest

from rankmill.errors import InputError
from rankmill.settings.train import TrainingListsSettings, TrainSettings
from rankmill.training.build import build_training_lists
from rankmill.training.lists import read_lists
from rankmill.training.train import train


@pytest.mark.slow
def test_lists_are_built_and_test_queries_stay_out(tmp_path: Path, tiny_body: Path, collection: Path) -> None:
    settings = TrainingListsSettings(
        output=tmp_path / "lists.parquet",
        bi_encoder=tiny_body,
        labelled=[collection],
        passages=[collection],
        packages=["s3fs"],
        dev_queries=1,
        passage_queries=12,
        docstring_queries=5,
        queries_per_judgement=2,
        dev_candidates=4,
    )
    summary = build_training_lists(settings)
    lists = read_lists([settings.output])
    assert summary.lists["tiny/dev"] == 1
    assert summary.lists["docstrings/train"] == 5
    assert summary.lists["tiny/train"] == 3 * 2 + 12
    assert summary.pairs == sum(len(item.candidates) for item in lists)
    assert not {"wind", "snow", "moon"} & {item.query for item in lists if not item.query_id.startswith("tiny-made")}
    assert all(candidate.teacher is not None for item in lists for candidate in item.candidates)


def test_building_twice_gives_the_same_file(tmp_path: Path, tiny_body: Path, collection: Path) -> None:
    built = []
    for name in ("one", "two"):
        settings = TrainingListsSettings(
            output=tmp_path / name,
            bi_encoder=tiny_body,
            labelled=[collection],
            passages=[collection],
            passage_queries=6,
        )
        build_training_lists(settings)
        built.append(read_lists([settings.output]))
    assert built[0] == built[1]


def test_a_collection_is_measured_after_training(tmp_path: Path, tiny_body: Path, collection: Path) -> None:
    lists = TrainingListsSettings(
        output=tmp_path / "lists.parquet", bi_encoder=tiny_body, labelled=[collection], dev_queries=0
    )
    build_training_lists(lists)
    settings = TrainSettings(
        input=[lists.output],
        output=tmp_path / "out",
        body=str(tiny_body),
        steps=1,
        evaluate=[collection],
        max_length=32,
    )
    figure = train(settings).figures[0]
    assert (figure.name, figure.queries, figure.pairs) == ("tiny", 3, 18)
    # The run is in document order: "wind" is fifth, "snow" sixth, "moon" third.
    assert figure.before == pytest.approx((0.3869 + 0.3562 + 0.5) / 3, abs=1e-3)
    assert 0 < figure.after <= 1


def test_nothing_to_build_from_and_an_empty_folder_are_refused(tmp_path: Path, tiny_body: Path) -> None:
    with pytest.raises(InputError, match="nothing to build from"):
        build_training_lists(TrainingListsSettings(output=tmp_path / "x", bi_encoder=tiny_body))
    with pytest.raises(InputError, match=r"holds neither corpus\.jsonl nor corpus\.jsonl\.gz"):
        build_training_lists(TrainingListsSettings(output=tmp_path / "x", bi_encoder=tiny_body, passages=[tmp_path]))
