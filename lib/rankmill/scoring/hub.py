"""Fetching a model from the Hugging Face hub: named files only, one pinned commit, no long waits.

Honours HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN, as huggingface_hub does.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import ModelError

SMALL_FILES = (
    "[0-9]_*/config.json",  # what sentence-transformers puts after a network: 1_Pooling, 2_Dense
    "artifact.metadata",  # of a Stanford ColBERT
    "chat_template.jinja",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors.index.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
WEIGHTS = ("model.safetensors", "model-*.safetensors", "[0-9]_*/model.safetensors")
# "*" in a pattern also matches "/": without this, onnx/ and its like would come along
_NOT_IN_FOLDERS = ["[!0-9]*/*", "[0-9]_*/*/*"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit of a hub repository in the local cache."""

    folder: Path
    commit: str


def fetch(repository: str, revision: str | None, check: Callable[[Path], object]) -> Snapshot:
    """Bring a model's files into the hub's cache, or find them there.

    A commit that is in the cache needs no network; without a network, the cache answers for branches and tags too.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None is the default branch.
        check: called with the folder once the small files are there; raises to spare the download of the weights.

    Raises:
        ModelError: no network and nothing cached, no such repository or revision, or no permission.
    """
    pinned = revision is not None and _COMMIT.fullmatch(revision) is not None
    folder = _cached(repository, revision) if pinned else None
    if folder is None:
        problem = _ask(repository, revision)
        if problem is not None:
            folder = _cached(repository, revision)
            if folder is None:
                raise _unreachable(repository, problem) from problem
    if folder is None:
        small = _download(repository, revision, SMALL_FILES)
        check(small)
        # the branch may have moved meanwhile: the weights come from the commit whose config was checked
        folder = _download(repository, small.name, SMALL_FILES + WEIGHTS)
    return Snapshot(folder, folder.name)


def _ask(repository: str, revision: str | None) -> Exception | None:
    """Ask the hub for the model, once and with a short timeout; downloads alone would wait for minutes.

    Returns:
        What kept the hub from answering, or None.

    Raises:
        ModelError: it answered that there is no such model, or not for this account.
    """
    # imported here: a folder or the built-in model needs none of it, and it takes 0.3 s
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError  # noqa: PLC0415

    try:
        HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_SECONDS)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _refused(repository, revision, error) from error
    except Exception as error:  # noqa: BLE001 - no network, offline mode, a server that is down: told by the caller
        return error
    return None


def _cached(repository: str, revision: str | None) -> Path | None:
    """The snapshot folder in the cache, if it holds what a model needs."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision,
                local_files_only=True,
                allow_patterns=[*SMALL_FILES, *WEIGHTS],
                ignore_patterns=_NOT_IN_FOLDERS,
            )
        )
    except LocalEntryNotFoundError:
        return None
    weights = any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
    return folder if weights and all((folder / name).is_file() for name in ("config.json", "tokenizer.json")) else None


def _download(repository: str, revision: str | None, files: tuple[str, ...]) -> Path:
    """The snapshot folder, with those of `files` that the repository has."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError  # noqa: PLC0415

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                etag_timeout=_TIMEOUT_SECONDS,
                allow_patterns=list(files),
                ignore_patterns=_NOT_IN_FOLDERS,
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _refused(repository, revision, error) from error
    except Exception as error:
        raise _unreachable(repository, error) from error


def _refused(repository: str, revision: str | None, error: Exception) -> ModelError:
    at = "" if revision is None else f" at revision {revision!r}"
    return ModelError(
        f"There is no folder {repository!r} here, and the hub has no model of that name{at} that this account may read "
        f"({type(error).__name__}). Check the name and the revision; for a private or gated model, set HF_TOKEN."
    )


def _unreachable(repository: str, error: Exception) -> ModelError:
    reason = str(error).splitlines()[0] if str(error) else "no details"
    return ModelError(
        f"The model {repository!r} is neither a folder here nor in the local hub cache, and the hub could not be "
        f"reached ({type(error).__name__}: {reason}). Without a network, use --model builtin, a local folder that "
        "holds the model, or a cache that was filled elsewhere (HF_HOME)."
    )
