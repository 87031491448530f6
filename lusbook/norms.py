"""Batch and instance normalisation, each in one fused operation, with explicit moving statistics."""

import keras
import numpy as np
from keras import layers, ops

from lusbook import backend

MOMENTUM = 0.9


class BatchNorm(layers.Layer):
    """Batch normalisation; momentum 0.9, epsilon 1e-3.

    A call changes nothing: beside the normalised tensor it returns the statistics that it used, shape
    (2, channels): mean and (unbiased) variance. :func:`move_statistics` takes them to the moving ones.
    """

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.centre = self.add_weight(shape=(shape[-1],), initializer="zeros", name="centre")
        self.moving = self.add_weight(shape=(2, shape[-1]), initializer=_start, trainable=False, name="moving")

    def call(self, x, training=False):
        if training:
            y, mean, variance = backend.batch_norm(x, self.scale.value, self.centre.value, 1e-3)
            return y, ops.stack([mean, variance])
        mean, variance = self.moving[0], self.moving[1]
        gain = self.scale * ops.rsqrt(variance + 1e-3)
        return x * gain + (self.centre - mean * gain), ops.convert_to_tensor(self.moving)

    def compute_output_spec(self, x, training=False):
        return keras.KerasTensor(x.shape, "float32"), keras.KerasTensor((2, x.shape[-1]), "float32")


def _start(shape, dtype=None):
    """Moving statistics before training: mean 0, variance 1."""
    return ops.stack([ops.zeros(shape[1:], dtype), ops.ones(shape[1:], dtype)])


class InstanceNorm(layers.Layer):
    """Normalise each channel of each image; with scale and centre, epsilon 1e-6."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.centre = self.add_weight(shape=(shape[-1],), initializer="zeros", name="centre")

    def call(self, x):
        return backend.instance_norm(x, self.scale.value, self.centre.value, 1e-6)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, "float32")


def move_statistics(model, passes):
    """Let a model's moving statistics follow training passes, one after the other.

    Parameters
    ----------
    model : keras.Model
        Its batch normalisations are :class:`BatchNorm`, in the order in which ``passes`` hold them.
    passes : list of tensor, shape (2, channels of all batch normalisations)
        Statistics of each pass; all layers side by side, as the model returns them.
    """
    norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    moving = ops.concatenate([norm.moving for norm in norms], axis=-1)
    for statistics in passes:
        moving = MOMENTUM * moving + (1 - MOMENTUM) * statistics
    ends = np.cumsum([norm.moving.shape[-1] for norm in norms])
    for norm, end in zip(norms, ends.tolist(), strict=True):
        norm.moving.assign(moving[:, end - norm.moving.shape[-1] : end])


def moments(model, batches):
    """Mean and mean square of what each batch normalisation sees, shape (2, channels of all of them).

    Parameters
    ----------
    model : keras.Model
        Its last output is the statistics of its batch normalisations; without dropout.
    batches : iterable of tensor, shape (n, size, size, 1), float32
        All of one length.

    References
    ----------
    Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS 2020.
    """
    found = np.stack([ops.convert_to_numpy(model(batch, training=True)[-1]) for batch in batches])
    return np.stack([found[:, 0].mean(axis=0), (found[:, 1] + found[:, 0] ** 2).mean(axis=0)])


def set_statistics(model, found):
    """Give a model's batch normalisations the statistics of :func:`moments`."""
    mean, square = found
    statistics = np.stack([mean, square - mean**2])  # (2, channels of all batch normalisations)
    norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    ends = np.cumsum([norm.moving.shape[-1] for norm in norms]).tolist()
    for norm, end in zip(norms, ends, strict=True):
        norm.moving.assign(statistics[:, end - norm.moving.shape[-1] : end])
