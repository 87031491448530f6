"""The U-Net of section 2.1."""

import keras
import numpy as np
from keras import layers, ops

from lusbook import augment, backend
from lusbook.training import Adam

CHANNELS = (16, 32, 64, 128)


def build_unet(width=1.0, dropout=0.5, seed=0):
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

    Returns
    -------
    model : keras.Model
        Images, (n, size, size, 1) in [-0.9, 0.9], to logits of B-line, (n, size, size, 1) float32;
        the size must be divisible by 8.

    References
    ----------
    Mason et al. 2021, section 2.1; Ronneberger et al. 2015.
    """
    channels = [max(1, round(count * width)) for count in CHANNELS]
    seeds = iter(np.random.SeedSequence(seed).generate_state(100))

    def convolution(count, size, **options):
        return layers.Conv2D(count, size, kernel_initializer=keras.initializers.HeNormal(int(next(seeds))), **options)

    def block(x, count):
        for _ in range(2):
            x = convolution(count, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
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
    logits = convolution(1, 1, dtype="float32")(x)
    return keras.Model(inputs, logits, name="unet")


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
        ``step(images, masks, transforms)`` updates the model and returns a dict of losses.
    optimizer : Adam
    state : list of keras.Variable
        Everything that an iteration changes.
    """
    optimizer = Adam(model.trainable_variables)
    state = [*model.variables, *optimizer.variables]

    def step(images, masks, transforms):
        # 1. Augment image and mask together.
        # 2. Forward pass and loss; 3. gradients; 4. one Adam step.
        images, masks = augment.transform(images, masks, transforms)

        def losses():
            cross_entropy, dice = bce_dice(model(images, training=True), masks)
            return [cross_entropy + dice], {"cross_entropy": cross_entropy, "dice_loss": dice}

        results, (found,) = backend.gradients(losses, [model.trainable_variables])
        optimizer.apply(found)
        return results

    return backend.compile_step(step, state), optimizer, state


def make_predict(model):
    """Compile inference: images, (n, size, size, 1), to probabilities of B-line, (n, size, size)."""
    return backend.compile_step(lambda images: ops.sigmoid(model(images, training=False))[..., 0], model.variables)
