"""Data-parallel training: each batch is shared out over several devices of one machine (JAX)."""

import numpy as np

from lusbook import trials
from lusbook.backend import keras  # which chooses Keras' backend first
from lusbook.errors import LusbookError


def share_batches(method, settings):
    """Let the training of one method in this process share each batch out over devices.

    Weights are on all devices, images of a batch on one each; XLA adds up what layers and losses sum over the batch.
    A training has the losses of one on a single device, but for the order of such sums. In SIFA, whose networks answer
    each other, float32 lets that grow to the second decimal within a few iterations; in double precision it is 1e-9
    after ten.

    Parameters
    ----------
    method : {"unet", "sifa"}
    settings : Settings
        With ``devices``; 1 leaves all as it is.

    Raises
    ------
    LusbookError
        When there are fewer devices, the batch does not divide by them, or the backend is not JAX.
    """
    count, batch = settings.devices, getattr(settings, f"{method}_batch_size")
    if count == 1:
        return
    if keras.backend.backend() != "jax":
        raise LusbookError(f"setting 'devices': {count} devices need KERAS_BACKEND=jax, not {keras.backend.backend()}")
    here = keras.distribution.list_devices()
    if len(here) < count:
        raise LusbookError(f"setting 'devices': expected at most the {len(here)} that are here, received {count}")
    if batch % count:
        raise LusbookError(f"setting 'devices': {method}_batch_size {batch} cannot be shared out over {count}")
    distribution = keras.distribution.DataParallel(devices=here[:count])
    keras.distribution.set_distribution(distribution)  # before the network is built: its weights go to all of them
    if method == "unet":
        network = trials.unet_network(settings.unet_width, settings.unet_dropout, settings.seed, settings.precision)
    else:
        network = trials.sifa_network(settings)
    if not getattr(network, "shared", False):  # a process keeps networks for its next run
        network.step, network.shared = shared(network.step, distribution, batch), True


def shared(step, distribution, batch):
    """A step whose batches of images lie on several devices, and all else on each of them.

    Parameters
    ----------
    step : callable
    distribution : keras.distribution.DataParallel
    batch : int
        What is as long along its first axis is shared out.
    """

    def place(array):
        array = np.asarray(array)
        layout = distribution.get_data_layout(array.shape)
        if array.ndim < 2 or len(array) != batch:
            layout = keras.distribution.TensorLayout([None] * array.ndim, distribution.device_mesh)
        return keras.distribution.distribute_tensor(array, layout)

    return lambda *arrays: step(*[place(array) for array in arrays])
