"""Fetching a model from the Hugging Face hub: named files only, one pinned commit, no long waits.

Honours HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN, as huggingface_hub does.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import ModelError

SMALL_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors.index.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
WEIGHTS = ("model.safetensors", "model-*.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit of a hub repository in the local cache."""

    folder: Path
    commit: str


def fetch(repository: str, revision: str | None, check: Callable[[Path], None]) -> Snapshot:
    """Bring a model's files into the hub's cache, or find them there.

    The revision is resolved to a commit once. A commit that is in the cache needs no network; without a network, the
    cache answers for branches and tags too.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None is the default branch.
        check: called with the folder once the small files are there; raises to spare the download of the weights.

    Raises:
        ModelError: no network and nothing cached, no such repository or revision, or no permission.
    """
    commit = revision if revision is not None and _COMMIT.fullmatch(revision) else _resolve(repository, revision)
    check(_download(repository, commit, SMALL_FILES))
    return Snapshot(_download(repository, commit, SMALL_FILES + WEIGHTS), commit)


def _resolve(repository: str, revision: str | None) -> str:
    """Commit hash of a branch or tag: one request with a short timeout, else what the cache remembers."""
    # imported here: a folder or the built-in model needs none of it, and it takes 0.3 s
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError  # noqa: PLC0415

    try:
        sha = HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_SECONDS).sha
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _refused(repository, revision, error) from error
    except Exception as error:  # noqa: BLE001 - re-raised below unless the cache answers
        # no network, offline mode, a server that is down: what was fetched before still counts
        try:
            return Path(snapshot_download(repository, revision=revision, local_files_only=True)).name
        except Exception:  # noqa: BLE001 - the reason worth telling is why the hub could not be asked
            raise _unreachable(repository, error) from error
    if sha is None:
        raise ModelError(f"The hub gave no commit for {repository!r} at {revision or 'its default branch'}.")
    return sha


def _download(repository: str, commit: str, files: tuple[str, ...]) -> Path:
    """The snapshot folder, with those of `files` that the repository has; falls back on the cache by itself."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError  # noqa: PLC0415

    try:
        return Path(
            snapshot_download(
                repository,
                revision=commit,
                etag_timeout=_TIMEOUT_SECONDS,
                allow_patterns=list(files),
                # "*" in a pattern also matches "/": without this, onnx/ and its like would come along
                ignore_patterns=["*/*"],
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _refused(repository, commit, error) from error
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
