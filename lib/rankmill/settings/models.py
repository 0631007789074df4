"""Settings of `rankmill models`."""

from pydantic import Field
from pydantic_settings import CliPositionalArg

from rankmill.settings.scorer import ScorerSettings


class InspectSettings(ScorerSettings):
    """Say what was understood of MODEL, and test it: known scores, an obvious order, one pair alone and among many.

    The exit code is 0 if MODEL can be used as it is, and 2 if it cannot: a file that does not fit, a known score that
    is missed, or a score that depends on the other pairs of a batch. An order that looks wrong is only a warning.
    """

    model: CliPositionalArg[str] = Field(description="builtin, a hub id such as BAAI/bge-reranker-v2-m3, or a folder")
    self_test: bool = Field(True, description="load the weights and score a few pairs")
    as_json: bool = Field(False, alias="json", description="print one JSON object")
