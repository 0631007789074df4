"""What a scorer is asked for: one frozen value, built at the entry point and passed whole."""

from dataclasses import dataclass, fields

from rankmill.errors import UsageError
from rankmill.settings.scorer import ScorerSettings

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class ScorerOptions:
    """Which model, and how to run it.

    Raises:
        UsageError: a number is not positive, or a name is not one of those listed.
    """

    model: str = "builtin"
    """`builtin`, a local folder, or a hub id such as `cross-encoder/ms-marco-MiniLM-L6-v2`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; None is the default branch. Resolved to a commit hash when loading."""
    max_length: int | None = None
    """Most tokens of a pair, special tokens included; None is the model's own limit."""
    max_query_tokens: int | None = None
    """Most tokens kept of a query; None is half of what the special tokens leave of `max_length`."""
    batch_tokens: int | None = None
    """Most tokens of a micro-batch, padding included; None is 2,048 on a CPU and 65,536 on a GPU."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu` or `cuda`."""
    precision: str = "float32"
    """Of the encoder's body: `float32`, `bfloat16` or `float16` (GPU only). Head and activation are always float32."""
    threads: int | None = None
    """CPU threads of the forward pass; None leaves torch's own choice."""

    @classmethod
    def of(cls, settings: ScorerSettings, threads: int | None = None) -> "ScorerOptions":
        """What a command's flags ask for."""
        shared = {field.name for field in fields(cls)} & set(ScorerSettings.model_fields)
        return cls(threads=threads, **{name: getattr(settings, name) for name in shared})

    def __post_init__(self) -> None:
        """Refuse what no model could fulfil."""
        for name in ("max_length", "max_query_tokens", "batch_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_flag(name)} is {value}; it must be at least 1, or left out.")
        for name, allowed in (("device", DEVICES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(f"{_flag(name)} is {value!r}; it must be one of {', '.join(allowed)}.")
        if not self.model:
            raise UsageError("--model is empty; give 'builtin', a folder or a hub id.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
