"""The U-Net of section 2.1."""

import keras
import numpy as np
from keras import layers, ops

from lusbook import augment, backend
from lusbook.norms import BatchNorm, move_statistics
from lusbook.training import Adam

CHANNELS = (16, 32, 64, 128)


def build_unet(width=1.0, dropout=0.5, seed=0, precision="float32"):
    """U-Net of four levels with batch normalisation between convolutions.

    A block is twice 3 x 3 convolution, batch normalisation, dropout, ReLU. Convolutions that
    batch normalisation follows have no bias: it would have no effect.

    Parameters
    ----------
    width : float
        Factor on the 16/32/64/128 channels.
    dropout : float
        Rate after each batch normalisation.
    seed : int
        Seed of weights and dropout.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions that batch normalisation follows; weights and all else are float32.

    Returns
    -------
    model : keras.Model
        Images, (n, size, size, 1) in [-0.9, 0.9], to logits of B-line, (n, size, size, 1) float32, and
        the statistics of its batch normalisations; the size must be divisible by 8.

    References
    ----------
    Mason et al. 2021, section 2.1; Ronneberger et al. 2015.
    """
    channels = [max(1, round(count * width)) for count in CHANNELS]
    seeds = iter(np.random.SeedSequence(seed).generate_state(100))
    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    statistics = []

    def convolution(count, size, **options):
        return layers.Conv2D(count, size, kernel_initializer=keras.initializers.HeNormal(int(next(seeds))), **options)

    def block(x, count):
        for _ in range(2):
            x, found = BatchNorm()(convolution(count, 3, padding="same", use_bias=False, dtype=policy)(x))
            statistics.append(found)
            x = layers.Dropout(dropout, seed=int(next(seeds)))(x)
            x = layers.ReLU()(x)
        return x

    inputs = x = keras.Input((None, None, 1))  # (n, size, size, 1)
    skips = []
    for count in channels[:-1]:
        x = block(x, count)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, channels[-1])  # (n, size / 8, size / 8, 128)
    for count, skip in zip(reversed(channels[:-1]), reversed(skips), strict=True):
        initializer = keras.initializers.HeNormal(int(next(seeds)))
        x = layers.Conv2DTranspose(count, 2, strides=2, kernel_initializer=initializer)(x)
        x = block(layers.Concatenate()([skip, x]), count)
    logits = convolution(1, 1)(x)
    return keras.Model(inputs, [logits, ops.concatenate(statistics, axis=-1)], name="unet")


def bce_dice(logits, masks):
    """Equal-weight binary cross-entropy and soft Dice loss, over the batch (section 2.3).

    Parameters
    ----------
    logits, masks : tensor, shape (n, size, size, 1), float32

    Returns
    -------
    cross_entropy, dice : scalar tensors
        The loss is their sum.
    """
    # log(1 + exp(-|x|)) keeps the cross-entropy finite for any logit.
    cross_entropy = ops.mean(ops.relu(logits) - logits * masks + ops.softplus(-ops.abs(logits)))
    probabilities = ops.sigmoid(logits)
    overlap = ops.sum(probabilities * masks)
    total = ops.sum(probabilities) + ops.sum(masks)
    return cross_entropy, 1 - (2 * overlap + 1e-7) / (total + 1e-7)


def make_step(model):
    """Compile one training iteration.

    Returns
    -------
    step : callable
        ``step(images, masks, transforms)`` augments, updates the model and returns a dict of losses.
    optimizer : Adam
    state : list of keras.Variable
        Everything that an iteration changes.
    """
    optimizer = Adam(model.trainable_variables)
    state = [*model.variables, *optimizer.variables]

    def step(images, masks):
        # 1. Forward pass and losses. 2. Gradients and one Adam step. 3. The moving statistics follow.
        def losses():
            logits, statistics = model(images, training=True)
            cross_entropy, dice = bce_dice(logits, masks)
            return [cross_entropy + dice, cross_entropy, dice, statistics]

        (_, cross_entropy, dice, statistics), pull = backend.vjp(losses, [], model.trainable_variables)
        optimizer.apply(pull([ops.ones(()), None, None, None], variables=True)[1])
        move_statistics(model, [statistics])
        return {"cross_entropy": cross_entropy, "dice_loss": dice}

    return backend.compile_step(step, state, augment.transform), optimizer, state


def make_predict(model):
    """Compile inference: images, (n, size, size, 1), to probabilities of B-line, (n, size, size)."""
    return backend.compile_step(lambda images: ops.sigmoid(model(images, training=False)[0])[..., 0], model.variables)
