"""Errors after which a process is of no use any more."""


def poisons(error: BaseException) -> bool:
    """Whether an error leaves a process that no CUDA call will ever succeed in again."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error) or "CUDNN_STATUS" in str(error)
