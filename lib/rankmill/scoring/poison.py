"""Errors after which a process is of no use any more."""


def poisons(error: BaseException) -> bool:
    """Whether an error leaves a process that no CUDA call will ever succeed in again.

    PyTorch's own alone: others may quote a text, which may say anything.
    """
    of_torch = type(error) is RuntimeError and str(error).startswith(("CUDA error", "cuDNN error"))
    return type(error).__name__ == "AcceleratorError" or of_torch
