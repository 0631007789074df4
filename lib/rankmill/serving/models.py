"""What the configured models are, read and pinned before anything starts."""

from dataclasses import replace

from rankmill.errors import ModelError
from rankmill.scoring.engines.choose import concrete, this_machine
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.serving.placement import place
from rankmill.settings.serve import EndpointSettings, ModelSettings


def models_of(settings: EndpointSettings) -> dict[str, ModelInfo]:
    """Read the files of every model, and pin what was found.

    Returns:
        By name, the default one first.

    Raises:
        ModelError: a model cannot be used.
        UsageError: an option does not fit its model.
    """
    return {model.public_name: _info(model, default=not i) for i, model in enumerate(settings.served)}


def refuse_other_files(model: ModelInfo, here: str, deployed: str) -> None:
    """Make sure that what was read here is the model that was deployed: scores would be wrong, without a complaint.

    Args:
        model: as it was deployed.
        here: digest of what was read.
        deployed: the same where it was deployed from.

    Raises:
        ModelError: they differ.
    """
    if here != deployed:
        raise ModelError(
            f"The model {model.options.model!r} has the fingerprint {here[:12]} here and {deployed[:12]} where it was "
            "deployed from: their files differ. Copy them again, or name a hub id with a --revision."
        )


def _info(model: ModelSettings, *, default: bool) -> ModelInfo:
    where = place(model, gpus=this_machine().gpus)
    # the device of the replicas, whatever the process that tokenises has
    options = concrete(replace(ScorerOptions.of(model, where.threads), device=where.device))
    card = check_model(options)
    return ModelInfo(
        name=model.public_name,
        aliases=model.aliases,
        card=card,
        options=replace(options, revision=card.revision or options.revision),
        default=default,
    )
