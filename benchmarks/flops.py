"""Floating-point operations of the networks: convolutions only, two for a multiplication with its addition.

Everything else (norms, activations, Adam) is memory traffic, not arithmetic. A convolution's gradient costs
as much again by its input and as much again by its filter.
"""

import keras
import numpy as np
import plain_sifa

CHANNELS = (16, 32, 64, 128)  # of the U-Net

# Passes of each network through one batch, by algorithm:
#
#     forward, backward to its inputs, backward to its weights, backward to both.
#
# A network that is called on two batches, or on two side by side, counts twice. A backward pass to the inputs
# computes no gradient of filters: what came before the network is trained, not the network. One to the weights
# computes no gradient of its first convolution's input. tests/test_benchmarks.py counts the convolutions of the
# traced steps, and compares them with these tables.
#
# The published algorithm, update by update: each computes anew what its loss needs.
PLAIN = {
    "generator": {
        "generator": (2, 0, 2, 0),
        "encoder": (2, 1, 0, 0),
        "decoder": (2, 1, 0, 0),
        "target": (1, 1, 0, 0),
    },
    "target": {"target": (2, 0, 2, 0)},
    "segmentation": {
        "generator": (2, 1, 0, 0),
        "encoder": (2, 0, 2, 0),
        "decoder": (2, 2, 0, 0),
        "segmenter": (2, 0, 0, 2),
        "segmenter_low": (2, 0, 0, 2),
        "source": (1, 1, 0, 0),
        "feature": (1, 1, 0, 0),
        "feature_low": (1, 1, 0, 0),
    },
    "decoder": {
        "generator": (2, 1, 0, 0),
        "encoder": (2, 0, 0, 0),
        "decoder": (2, 0, 2, 0),
        "source": (1, 1, 0, 0),
    },
    "source": {
        "generator": (1, 0, 0, 0),
        "encoder": (1, 0, 0, 0),
        "decoder": (1, 0, 0, 0),
        "source": (3, 0, 3, 0),
    },
    "feature": {
        "generator": (1, 0, 0, 0),
        "encoder": (2, 0, 0, 0),
        "segmenter": (2, 0, 0, 0),
        "feature": (2, 0, 2, 0),
    },
    "feature_low": {
        "generator": (1, 0, 0, 0),
        "encoder": (2, 0, 0, 0),
        "segmenter_low": (2, 0, 0, 0),
        "feature_low": (2, 0, 2, 0),
    },
}

# The same result with what no update changed taken over: lusbook.sifa.sequential.
SEQUENTIAL = {
    "generator": PLAIN["generator"],
    "target": PLAIN["target"],
    # Real target images encoded, and decoded to fake source, stand; both are passed back through, once.
    "segmentation": {
        "generator": (2, 1, 0, 0),  # fake target anew; the cycle of fake source, and back through it
        "encoder": (1, 0, 2, 0),
        "decoder": (1, 2, 0, 0),
        "segmenter": (2, 0, 0, 2),
        "segmenter_low": (2, 0, 0, 2),
        "source": (1, 1, 0, 0),
        "feature": (1, 1, 0, 0),
        "feature_low": (1, 1, 0, 0),
    },
    # Fake target stands from here on, and so do both encodings.
    "decoder": {
        "generator": (1, 1, 0, 0),
        "encoder": (2, 0, 0, 0),
        "decoder": (2, 0, 2, 0),
        "source": (1, 1, 0, 0),
    },
    "source": {"decoder": (1, 0, 0, 0), "source": (3, 0, 3, 0)},
    "feature": {"segmenter": (2, 0, 0, 0), "feature": (2, 0, 2, 0)},
    "feature_low": {"segmenter_low": (2, 0, 0, 0), "feature_low": (2, 0, 2, 0)},
}

# One forward pass for all updates: lusbook.sifa.simultaneous, by its numbered parts.
SIMULTANEOUS = {
    "forward": {"generator": (2, 0, 0, 0), "encoder": (2, 0, 0, 0), "decoder": (2, 0, 0, 0)},
    "images": {
        "generator": (0, 0, 1, 1),  # of the first pass, of the cycle
        "encoder": (0, 1, 0, 0),
        "decoder": (0, 0, 0, 2),
        "target": (1, 1, 0, 0),
        "source": (1, 2, 0, 0),  # its two channels separately
    },
    "features": {
        "encoder": (0, 0, 2, 0),
        "decoder": (0, 2, 0, 0),  # the auxiliary channel's gradient, beside zeros for the other domain
        "segmenter": (2, 0, 0, 2),
        "segmenter_low": (2, 0, 0, 2),
        "feature": (1, 1, 0, 0),
        "feature_low": (1, 1, 0, 0),
    },
    "discriminators": {
        "target": (2, 0, 2, 0),
        "source": (3, 0, 3, 0),
        "feature": (2, 0, 2, 0),
        "feature_low": (2, 0, 2, 0),
    },
}


def total(updates):
    """Sum of the passes of several updates."""
    passes = {}
    for update in updates.values():
        for network, counts in update.items():
            passes[network] = tuple(np.add(passes.get(network, (0, 0, 0, 0)), counts).tolist())
    return passes


PASSES = {"plain": total(PLAIN), "sequential": total(SEQUENTIAL), "simultaneous": total(SIMULTANEOUS)}


def model_flops(model):
    """Operations of a forward pass of one image, from the shapes of a model's convolutions.

    Returns
    -------
    operations : tuple of int
        Of all convolutions, and of the first one.
    """
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2DTranspose):
            shape = layer.input.shape  # every input pixel meets the whole kernel
        elif isinstance(layer, keras.layers.Conv2D):
            shape = layer.output.shape
        else:
            continue
        found.append(2 * shape[1] * shape[2] * int(np.prod(layer.kernel.shape)))
    return sum(found), found[0]


def sifa_flops(size, width=1.0):
    """Operations of each of SIFA's networks for one image, by name; see :func:`model_flops`."""
    return {name: model_flops(network) for name, network in vars(plain_sifa.build_networks(size, width)).items()}


def by_kind(forward, passes):
    """Operations of one image: forward, gradients by inputs, gradients by filters.

    Parameters
    ----------
    forward : dict of tuple
        As :func:`sifa_flops` gives them.
    passes : dict
        One of :data:`PASSES`.
    """
    kinds = np.zeros(3, int)
    for name, (ahead, to_inputs, to_weights, to_both) in passes.items():
        every, first = forward[name]
        inputs = (to_inputs + to_weights + to_both) * every - to_weights * first
        kinds += ahead * every, inputs, (to_weights + to_both) * every
    return kinds.tolist()


def iteration_flops(forward, passes, batch):
    """Operations of one iteration of SIFA; parameters as :func:`by_kind`."""
    return batch * sum(by_kind(forward, passes))


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
    """Operations of a training step of the U-Net: forward, and both gradients; images have none."""
    first = 2 * size**2 * 9 * max(1, round(CHANNELS[0] * width))
    return batch * (3 * unet_flops(size, width) - first)


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
