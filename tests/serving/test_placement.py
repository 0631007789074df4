"""What replicas hold of a machine."""

import pytest

from rankmill.serving.placement import Placement, cpus_needed, place, share_cores
from rankmill.settings.serve import EndpointSettings, ModelSettings

BUILTIN = ModelSettings(model="builtin")


@pytest.mark.parametrize(
    ("model", "gpus", "expected"),
    [
        (BUILTIN, 0, Placement(1.0, 0.0, "cpu", 1)),
        (BUILTIN, 2, Placement(1.0, 1.0, "cuda", None)),
        (ModelSettings(model="builtin", threads=4), 0, Placement(4.0, 0.0, "cpu", 4)),
        (ModelSettings(model="builtin", gpus_per_replica=0.25), 0, Placement(1.0, 0.25, "cuda", None)),
        (ModelSettings(model="builtin", gpus_per_replica=0, threads=2), 8, Placement(2.0, 0.0, "cpu", 2)),
    ],
)
def test_a_replica_has_a_gpu_where_there_is_one_or_as_was_asked(
    model: ModelSettings, gpus: int, expected: Placement
) -> None:
    assert place(model, gpus=gpus) == expected


def settings(**more: object) -> EndpointSettings:
    models = [
        {"model": "builtin", "threads": 3, "replicas": "1,2"},
        {"model": "builtin", "name": "other", "threads": 1},
    ]
    return EndpointSettings.model_validate({"models": models, "gateways": 2, **more})


def test_all_processes_and_the_largest_replica_of_a_new_version_have_room() -> None:
    without = 2 + 2 * 3 + 1
    assert cpus_needed(settings(surge_percent=0), gpus=0) == without
    assert cpus_needed(settings(), gpus=0) == without + 3
    assert cpus_needed(settings(index="my-index", index_replicas=2), gpus=0) == without + 2 + 3
    assert cpus_needed(EndpointSettings(model="builtin"), gpus=1) == 1 + 1 + 1


def test_cores_are_shared_by_the_replicas_that_were_given_no_threads() -> None:
    assert share_cores(EndpointSettings(model="builtin", replicas=(1, 4)), cores=8, gpus=0).threads == 2
    shared = share_cores(
        EndpointSettings.model_validate(
            {"models": [{"model": "builtin"}, {"model": "builtin", "name": "other", "threads": 5}]}
        ),
        cores=8,
        gpus=0,
    )
    assert [model.threads for model in shared.models] == [4, 5]
    assert share_cores(EndpointSettings(model="builtin", replicas=(1, 9)), cores=2, gpus=0).threads == 1
