"""A model folder's files, read without torch: JSON, and the headers of safetensors files.

Formats: https://huggingface.co/docs/safetensors (header), and the index that transformers writes beside sharded
weights (`weight_map`: tensor name -> file name).

Only files directly in the model's folder are read. A symbolic link there is followed, wherever it points to: the hub's
cache is made of them (`snapshots/COMMIT/config.json -> ../../blobs/HASH`), and whoever can put a link into the folder
could put the file there as well. What comes out of a file cannot lead anywhere: names in the index are checked.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rankmill.errors import ModelError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")
_HINTS = {
    "config.json": "A model folder holds config.json, model.safetensors and tokenizer.json.",
    "tokenizer.json": (
        "Only the fast tokenizer's file is read; transformers writes it: "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
    ),
}
_CHUNK_BYTES = 1 << 20
# The format of int8.py, repeated because that module needs torch and this one must not: `x.int8` and `x.scale` are `x`.
_INT8_MARK = {"rankmill_weights": "int8-rows-v1"}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_INT8_VALUES, _INT8_SCALE = ".int8", ".scale"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a safetensors header."""

    dtype: str
    """As safetensors writes it: F32, F16, BF16, I8, …"""
    shape: tuple[int, ...]


def read_json(model: str, path: Path) -> dict[str, Any]:
    """Read a JSON object that must be there.

    Raises:
        ModelError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise ModelError(f"The model {model!r} is incomplete: {path} is missing. {_HINTS.get(path.name, '')}".rstrip())
    try:
        content = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"The file {path} of the model {model!r} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"The file {path} of the model {model!r} holds a {type(content).__name__}, not a JSON object.")
    return content


def read_json_if_any(model: str, path: Path) -> dict[str, Any]:
    """Read a JSON object, or {} where there is no such file."""
    return read_json(model, path) if path.is_file() else {}


def weight_files(model: str, folder: Path) -> tuple[Path, ...]:
    """The safetensors files that hold the weights, in name order.

    Raises:
        ModelError: there are none, a shard is missing, or the index names a file outside of the folder.
    """
    if (folder / _SINGLE).is_file():
        return (folder / _SINGLE,)
    if (folder / _INDEX).is_file():
        return _sharded(model, folder)
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f"The model {model!r} has its weights only as {', '.join(pickled)}: reading such files can run code hidden "
            f"in them, so only safetensors are read. Convert once, where you trust the file: "
            "AutoModelForSequenceClassification.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    raise ModelError(f"The model {model!r} has no weights: {folder} holds no {_SINGLE}.")


def _sharded(model: str, folder: Path) -> tuple[Path, ...]:
    weight_map = read_json(model, folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise ModelError(f"The file {folder / _INDEX} of the model {model!r} has no weight_map.")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        # a name with a separator could reach any file of this machine ("../../…", "/etc/…")
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise ModelError(
                f"The weight index of the model {model!r} names {name!r}; only safetensors files directly in the "
                "model's folder are read."
            )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"The model {model!r} is incomplete: {', '.join(missing)} missing in {folder}.")
    return tuple(folder / name for name in names)


def read_headers(model: str, paths: tuple[Path, ...]) -> dict[str, Tensor]:
    """Name, dtype and shape of every stored tensor; the data is not read.

    A matrix stored as int8 rows with scales (`int8.py`) counts as one tensor of its own name.

    Raises:
        ModelError: a file is cut short or not safetensors, a weight is neither float nor our int8, or is there twice.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="numpy") as opened:
                int8 = _INT8_MARK.items() <= (opened.metadata() or {}).items()
                stored = set(opened.keys())
                for key in sorted(stored):
                    name = key.removesuffix(_INT8_VALUES) if int8 else key
                    if int8 and key.removesuffix(_INT8_SCALE) + _INT8_VALUES in stored and key.endswith(_INT8_SCALE):
                        continue
                    if name in tensors:
                        raise ModelError(f"The model {model!r} holds the weight {name!r} twice, again in {path.name}.")
                    entry = opened.get_slice(key)
                    tensors[name] = Tensor(entry.get_dtype(), tuple(entry.get_shape()))
                    if tensors[name].dtype not in _FLOATS and not int8 and not key.endswith("position_ids"):
                        raise ModelError(
                            f"The weight {key!r} of the model {model!r} is stored as {tensors[name].dtype}; quantised "
                            "weights need the code that wrote them. Give the model as float32, bfloat16 or float16."
                        )
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"The weights of the model {model!r} cannot be read: {path} ({path.stat().st_size:,} bytes) is damaged "
                f"or cut short ({error}). Fetch the file again."
            ) from error
    return tensors


def sha256(path: Path) -> str:
    """Hash of a file's content, streamed; remembered in this process until the file's size or time changes."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
