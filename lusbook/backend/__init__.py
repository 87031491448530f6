"""The gradient step, once per Keras backend: the only code that knows which backend runs.

Both files offer the same functions: ``device``, ``compile_step``, ``vjp``, ``adam``, ``batch_norm`` and
``instance_norm``.
"""

import importlib.util
import os
from contextlib import contextmanager


@contextmanager
def _silent_stderr():
    """Hide file descriptor 2: TensorFlow's start-up lines ignore every logging variable."""
    saved, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "jax"

with _silent_stderr():
    import keras

    if keras.backend.backend() == "tensorflow":
        from lusbook.backend.tensorflow import adam, batch_norm, compile_step, device, instance_norm, vjp
    elif keras.backend.backend() == "jax":
        from lusbook.backend.jax import adam, batch_norm, compile_step, device, instance_norm, vjp
    else:
        raise ImportError(f"lusbook runs on the Keras backends tensorflow and jax, not {keras.backend.backend()!r}")

    keras.ops.zeros(1)  # the first operation starts the device, which prints more

__all__ = ["adam", "batch_norm", "compile_step", "device", "instance_norm", "vjp"]
