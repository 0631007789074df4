"""What a scorer is asked for: one frozen value, built at the entry point and passed whole."""

from dataclasses import dataclass, fields

from rankmill.errors import UsageError
from rankmill.settings.scorer import ScorerSettings

DEVICES = ("auto", "cpu", "cuda")
LONG_DOCUMENTS = ("truncate", "chunk")
ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


_CHOICES = {"device": DEVICES, "engine": ENGINES, "long_documents": LONG_DOCUMENTS, "precision": PRECISIONS}


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
    trust_remote_code: bool = False
    """Whether Python code in a model's folder may be run, where a cross-encoder brings its own (`auto_map`)."""
    template: str | None = None
    """Prompt of a language model, such as `qwen3-reranker@1`; None is the one that its own files point to."""
    instruction: str | None = None
    """What a language model is told to judge by; None is its own default. Other models take none."""
    listwise: bool = False
    """Of an endpoint: whether it scores lists, a query and all its documents to a request. Other models say it
    themselves."""
    max_length: int | None = None
    """Most tokens of a pair, special tokens included; None is the model's own limit."""
    max_query_tokens: int | None = None
    """Most tokens kept of a query; None is half of what the special tokens leave of `max_length`."""
    max_document_tokens: int | None = None
    """Most tokens read of a document, whether at once or in chunks; None is as many as fit, or all of its chunks."""
    long_documents: str = "truncate"
    """A document that does not fit: `truncate` it, or `chunk` it and take the best chunk (cross-encoders)."""
    chunk_overlap: int | None = None
    """Tokens that neighbouring chunks share; None is a quarter of the room for the document."""
    batch_tokens: int | str | None = None
    """Most tokens of a micro-batch, padding included; None is 2,048 on a CPU and 65,536 on a GPU, `auto` measures."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu` or `cuda`."""
    engine: str = "auto"
    """`torch`, `openvino` (CPU, encoders with a head), or `auto`: see `engines.choose`."""
    precision: str = "auto"
    """Of the encoder's body: `float32`, `bfloat16` or `float16` (GPU only); `auto` is float32 on a CPU, bfloat16 on a
    GPU. Head and activation are always float32."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time; slower on a GPU."""
    threads: int | None = None
    """CPU threads of the forward pass; None leaves torch's own choice."""

    @classmethod
    def of(cls, settings: ScorerSettings, threads: int | None = None) -> "ScorerOptions":
        """What a command's flags ask for."""
        shared = {field.name for field in fields(cls)} & set(ScorerSettings.model_fields)
        return cls(threads=threads, **{name: getattr(settings, name) for name in shared})

    def __post_init__(self) -> None:
        """Refuse what no model could fulfil."""
        for name in ("max_length", "max_query_tokens", "max_document_tokens", "batch_tokens", "threads"):
            value = getattr(self, name)
            if name == "batch_tokens" and value == "auto":
                continue
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{_flag(name)} is {value}; it must be at least 1, or left out.")
        if self.chunk_overlap is not None and self.long_documents != "chunk":
            raise UsageError(f"--chunk-overlap {self.chunk_overlap} needs --long-documents chunk.")
        if self.chunk_overlap is not None and self.chunk_overlap < 0:
            raise UsageError(f"--chunk-overlap is {self.chunk_overlap}; it must be at least 0, or left out.")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(f"{_flag(name)} is {value!r}; it must be one of {', '.join(allowed)}.")
        if self.instruction is not None and not self.instruction.strip():
            raise UsageError("--instruction is empty; leave it out for the model's own.")
        if not self.model:
            raise UsageError("--model is empty; give 'builtin', a folder or a hub id.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
