"""Floating-point operations of the networks: convolutions only, two for a multiplication with its addition.

Everything else (norms, activations, Adam) is memory traffic, not arithmetic. A convolution's gradient costs
as much again by its input and as much again by its filter.
"""

import keras
import numpy as np
import plain_sifa

CHANNELS = (16, 32, 64, 128)  # of the U-Net

# Passes of each network through one batch, by algorithm: forward, gradient by the input, gradient by the
# filters. A network that is called on two batches counts twice. Where gradients only pass through a
# network to what came before it, there are none by its filters.
#
# The published algorithm, update by update: each computes anew what its loss needs.
PLAIN_UPDATES = {
    "generator": {
        "generator": (2, 2, 2),
        "encoder": (2, 1, 0),
        "decoder": (2, 1, 0),
        "target": (1, 1, 0),
    },
    "target": {"target": (2, 2, 2)},
    "segmentation": {
        "generator": (2, 1, 0),
        "encoder": (2, 2, 2),
        "decoder": (2, 2, 0),
        "segmenter": (2, 2, 2),
        "segmenter_low": (2, 2, 2),
        "source": (1, 1, 0),
        "feature": (1, 1, 0),
        "feature_low": (1, 1, 0),
    },
    "decoder": {
        "generator": (2, 1, 0),
        "encoder": (2, 0, 0),
        "decoder": (2, 2, 2),
        "source": (1, 1, 0),
    },
    "source": {
        "generator": (1, 0, 0),
        "encoder": (1, 0, 0),
        "decoder": (1, 0, 0),
        "source": (3, 3, 3),
    },
    "feature": {"generator": (1, 0, 0), "encoder": (2, 0, 0), "segmenter": (2, 0, 0), "feature": (2, 2, 2)},
    "feature_low": {"generator": (1, 0, 0), "encoder": (2, 0, 0), "segmenter_low": (2, 0, 0), "feature_low": (2, 2, 2)},
}


def total(updates):
    """Sum of the passes of several updates."""
    passes = {}
    for update in updates.values():
        for network, counts in update.items():
            passes[network] = tuple(np.add(passes.get(network, (0, 0, 0)), counts).tolist())
    return passes


def changed(passes, **more):
    """Passes with some added."""
    return passes | {name: tuple(np.add(passes[name], counts).tolist()) for name, counts in more.items()}


PASSES = {
    "plain": total(PLAIN_UPDATES),
    # D_s' update decodes both domains in one call, and encodes both for that.
    "sequential": changed(total(PLAIN_UPDATES), encoder=(1, 0, 0), decoder=(1, 0, 0)),
    # One forward pass, three backward passes: of cycle and adversarial terms, of the segmentation's terms,
    # of the discriminators.
    "simultaneous": {
        "generator": (2, 2, 2),
        "encoder": (2, 4, 4),
        "decoder": (2, 3, 2),
        "segmenter": (2, 2, 2),
        "segmenter_low": (2, 2, 2),
        "target": (3, 3, 2),
        "source": (4, 5, 3),
        "feature": (3, 3, 2),
        "feature_low": (3, 3, 2),
    },
}


def model_flops(model):
    """Operations of a forward pass of one image, from the shapes of a model's convolutions."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2DTranspose):
            shape = layer.input.shape  # every input pixel meets the whole kernel
        elif isinstance(layer, keras.layers.Conv2D):
            shape = layer.output.shape
        else:
            continue
        total += 2 * shape[1] * shape[2] * int(np.prod(layer.kernel.shape))
    return total


def sifa_flops(size, width=1.0):
    """Operations of each of SIFA's networks for a forward pass of one image, by name."""
    return {name: model_flops(network) for name, network in vars(plain_sifa.build_networks(size, width)).items()}


def iteration_flops(forward, passes, batch):
    """Operations of one iteration of SIFA.

    Parameters
    ----------
    forward : dict of int
        As :func:`sifa_flops` gives them.
    passes : dict
        One of :data:`PASSES`.
    batch : int
    """
    return batch * sum(forward[name] * sum(counts) for name, counts in passes.items())


def unet_flops(size, width=1.0):
    """Operations of the U-Net for a forward pass of one image."""
    channels = [max(1, round(count * width)) for count in CHANNELS]
    total, before = 0, 1
    for level, count in enumerate(channels):
        pixels = (size >> level) ** 2
        total += 2 * pixels * 9 * count * (before + count)
        if level < len(channels) - 1:  # and the block on the way up: transposed convolution, two convolutions
            total += 2 * pixels * count * channels[level + 1] + 2 * pixels * 9 * count * 3 * count
        before = count
    return total + 2 * size**2 * channels[0]


def unet_step_flops(size, width, batch):
    """Operations of a training step of the U-Net: forward, and both gradients."""
    return 3 * batch * unet_flops(size, width)


def matmul_rate(multiply, size=2048):
    """Operations of a matrix product of two square matrices, and its inputs.

    Parameters
    ----------
    multiply : callable
        Product on the device.
    size : int

    Returns
    -------
    operations : int
    call : callable
        Computes the product once.
    """
    rng = np.random.default_rng(0)
    a, b = (keras.ops.convert_to_tensor(rng.normal(size=(size, size)).astype("float32")) for _ in "ab")
    return 2 * size**3, lambda: multiply(a, b)
