"""What sentence-transformers and PyLate put around a network: modules.json, and the layers that it names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.files import Tensor, read_headers, read_json, weight_files

_ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu"}


@dataclass(frozen=True, slots=True)
class Module:
    """One line of modules.json."""

    package: str
    """First part of the class's name: `sentence_transformers`, `pylate`, or whose code it would be."""
    kind: str
    """The class itself: `Transformer`, `Pooling`, `Dense`, `Normalize`, …"""
    path: str
    """Its folder inside the model's folder; empty for the model's folder itself."""


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer that comes after the network: `activation(x W + b)`, maybe plus `x` or `x R`."""

    path: Path
    """The safetensors file with `linear.weight`, maybe `linear.bias` and `residual.weight`."""
    tensors: Mapping[str, Tensor]
    """Those of them that the file holds."""
    activation: str
    """`identity`, `tanh`, `relu` or `gelu`."""
    residual: bool
    """Whether the input is added to the output, through `residual.weight` where that is there."""

    @property
    def identity(self) -> list[str | bool]:
        """What of it belongs into a fingerprint, beyond the weights."""
        return ["dense", self.activation, self.residual]


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer normalisation that comes after the network, over the last dimension, with torch's own epsilon."""

    path: Path
    """The safetensors file with `norm.weight` and `norm.bias`."""
    tensors: Mapping[str, Tensor]

    @property
    def identity(self) -> list[str | bool]:
        """What of it belongs into a fingerprint, beyond the weights."""
        return ["norm"]


def read_modules(model: str, folder: Path) -> tuple[Module, ...]:
    """Read modules.json; a folder without one has no modules.

    Raises:
        ModelError: it cannot be read, or a module lies outside of the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    try:
        found = [(str(entry["type"]), str(entry.get("path", ""))) for entry in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"The modules.json of the model {model!r} cannot be read: {error!r}.") from error
    for _, inside in found:
        if inside and (Path(inside).name != inside or inside == ".." or "\\" in inside):
            raise ModelError(
                f"The modules.json of the model {model!r} names the folder {inside!r}; only folders directly in the "
                "model's folder are read."
            )
    return tuple(Module(name.split(".", 1)[0], name.rsplit(".", 1)[-1], inside) for name, inside in found)


def check_modules(model: str, modules: Sequence[Module], known: Sequence[str]) -> None:
    """Refuse modules that are not known, come from elsewhere, or whose network lies in a folder of its own.

    Args:
        model: the model's name, for messages.
        modules: of its modules.json.
        known: kinds that may follow the network.

    Raises:
        ModelError: naming what cannot be run.
    """
    kinds = ", ".join(module.kind for module in modules)
    if modules[0].kind != "Transformer":
        raise ModelError(
            f"The model {model!r} does not begin with a network of transformers (modules.json: {kinds}), which this "
            "version cannot run."
        )
    if modules[0].path:
        raise ModelError(
            f"The network of the model {model!r} lies in the folder {modules[0].path!r}; only models whose network "
            "lies directly in the model's folder are read. Saving it again with sentence-transformers moves it there."
        )
    foreign = [module for module in modules if module.package not in ("sentence_transformers", "pylate")]
    if foreign:
        raise ModelError(
            f"The model {model!r} brings its own Python code ({foreign[0].package}….{foreign[0].kind} in "
            "modules.json), which is never run."
        )
    unknown = [module.kind for module in modules[1:] if module.kind not in known]
    if unknown:
        raise ModelError(
            f"The model {model!r} has the modules {kinds} (modules.json), of which {', '.join(unknown)} cannot be run "
            "here; leaving them out would change every score."
        )


def pools_once(modules: Sequence[Module]) -> bool:
    """Whether one pooling follows the network at once, and no other later."""
    return [number for number, module in enumerate(modules) if module.kind == "Pooling"] == [1]


def read_dense(model: str, folder: Path, module: Module, activation: str) -> Dense:
    """Read a dense layer's config and header.

    Args:
        model: the model's name, for messages.
        folder: the model's.
        module: in modules.json.
        activation: where its config names none.

    Raises:
        ModelError: files are missing, or it is of a kind that is not known.
    """
    config = read_json(model, folder / module.path / "config.json")
    stated = str(config.get("activation_function") or "")
    if stated:
        known = stated.startswith("torch.nn.") and _ACTIVATIONS.get(stated.rsplit(".", 1)[-1])
        if not known:
            raise ModelError(
                f"The layer {module.path} of the model {model!r} has the activation {stated!r}; known are torch.nn's "
                f"{', '.join(_ACTIVATIONS)}, because anything else would mean running code named by a file."
            )
        activation = known
    files = weight_files(model, folder / module.path)
    if len(files) != 1:
        raise ModelError(
            f"The layer {module.path} of the model {model!r} has its weights in {len(files)} files, not 1."
        )
    tensors = read_headers(model, files)
    residual = bool(config.get("use_residual", False))
    wanted = {"linear.weight"} | ({"linear.bias"} if config.get("bias", True) else set())
    wanted |= {"residual.weight"} if residual and config.get("in_features") != config.get("out_features") else set()
    if set(tensors) != wanted:
        raise ModelError(
            f"The layer {module.path} of the model {model!r} holds the weights {', '.join(sorted(tensors))}; by its "
            f"config.json, {', '.join(sorted(wanted))} belong there."
        )
    return Dense(files[0], tensors, activation, residual)


def read_norm(model: str, folder: Path, module: Module) -> Norm:
    """Read a layer normalisation's header.

    Raises:
        ModelError: files are missing, or it holds something else.
    """
    files = weight_files(model, folder / module.path)
    tensors = read_headers(model, files)
    if len(files) != 1 or set(tensors) != {"norm.weight", "norm.bias"}:
        raise ModelError(
            f"The layer {module.path} of the model {model!r} holds the weights {', '.join(sorted(tensors))}; norm.bias "
            "and norm.weight belong there."
        )
    return Norm(files[0], tensors)


def refuse_detours(model: str, folder: Path, module: Module, output: str = "sentence_embedding") -> None:
    """Refuse a dense layer that reads something else than what the module before it gave, or puts it elsewhere.

    Args:
        model: the model's name, for messages.
        folder: the model's.
        module: the dense layer.
        output: where its result belongs: `sentence_embedding`, or `scores` for the last layer of a cross-encoder.

    Raises:
        ModelError: naming both.
    """
    config = read_json(model, folder / module.path / "config.json")
    taken = config.get("module_input_name") or "sentence_embedding"
    given = config.get("module_output_name") or taken
    if (taken, given) != ("sentence_embedding", output):
        raise ModelError(
            f"The layer {module.path} of the model {model!r} makes {given!r} of {taken!r} (its config.json); known is "
            f"a layer that makes {output!r} of 'sentence_embedding' there."
        )


def check_widths(model: str, width: int, layers: Sequence[Dense | Norm]) -> int:
    """Refuse layers that do not take what the one before gives.

    Args:
        model: the model's name, for messages.
        width: of what goes into the first.
        layers: in order.

    Returns:
        The width of what comes out of the last.

    Raises:
        ModelError: naming both widths.
    """
    for layer in layers:
        if isinstance(layer, Norm):
            if any(tensor.shape != (width,) for tensor in layer.tensors.values()):
                raise ModelError(
                    f"A layer normalisation of the model {model!r} ({layer.path.name} in {layer.path.parent.name}) "
                    f"does not have the shape ({width},) of the vectors that it gets."
                )
            continue
        shape = layer.tensors["linear.weight"].shape
        if len(shape) != 2 or shape[1] != width:
            raise ModelError(
                f"A dense layer of the model {model!r} ({layer.path.name} in {layer.path.parent.name}) has the shape "
                f"{shape}, but gets vectors of {width} numbers."
            )
        width = shape[0]
    return width


def prompts_of(model: str, sentence_transformers: Mapping[str, Any]) -> tuple[str, str]:
    """What goes before queries and before documents, in the order that `encode_document` documents.

    sentence-transformers 6.2 itself puts an empty prompt `document` where a file states none, which then hides the
    file's `passage`; here, a prompt that is empty is not there.

    Args:
        model: the model's name, for messages.
        sentence_transformers: config_sentence_transformers.json, or empty.

    Returns:
        The prompt `query`, and the first stated of `document`, `passage` and `corpus`; "" where there is none.

    Raises:
        ModelError: a prompt is no text.
    """
    prompts = sentence_transformers.get("prompts") or {}
    if not isinstance(prompts, Mapping) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ModelError(f"The prompts of the model {model!r} (config_sentence_transformers.json) are not all texts.")
    documents = [prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)]
    return prompts.get("query") or "", documents[0] if documents else ""
