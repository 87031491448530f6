"""SIFA in plain Keras and TensorFlow: what lusbook.sifa is compared with, in numbers and in time.

Written for itself, from Chen et al. 2020 and its reference implementation: layers, normalisation and
Adam are Keras' own, and each of the seven updates of an iteration computes anew, at the weights as they
are then, the forward pass that its loss needs. Nothing is shared with the package.

As a script: the largest differences from lusbook's sequential updates after some iterations.
"""

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import common
import keras
import numpy as np
import typer
from keras import layers, ops

# ---------------------------------------------------------------------------------------------
# Networks


def conv_norm(x, filters, size, strides=1, norm=None, relu=True, **options):
    options = {"padding": "same", "use_bias": False, "kernel_initializer": options.pop("initializer")} | options
    x = layers.Conv2D(filters, size, strides, **options)(x)
    x = norm()(x) if norm else x
    return layers.ReLU()(x) if relu else x


def transposed(x, filters, initializer):
    x = layers.Conv2DTranspose(filters, 3, 2, padding="same", kernel_initializer=initializer)(x)
    return layers.ReLU()(instance_norm()(x))


def residual(x, filters, norm, **options):
    y = conv_norm(x, filters, 3, norm=norm, **options)
    y = conv_norm(y, filters, 3, norm=norm, relu=False, **options)
    missing = y.shape[-1] - x.shape[-1]
    if missing:  # zero channels, half on each side
        x = ops.pad(x, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
    return layers.ReLU()(layers.Add()([x, y]))


def instance_norm():
    return layers.GroupNormalization(groups=-1, epsilon=1e-6)


def batch_norm():
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-3)


def spread(stddev):
    return keras.initializers.TruncatedNormal(stddev=stddev)


def build_generator(size, scaled):
    options = {"norm": instance_norm, "initializer": spread(0.02), "use_bias": True}
    image = keras.Input((size, size, 1))
    x = layers.ZeroPadding2D(3)(image)
    x = conv_norm(x, scaled(32), 7, padding="valid", **options)
    x = conv_norm(x, scaled(64), 3, 2, **options)
    x = conv_norm(x, scaled(128), 3, 2, **options)
    for _ in range(9):
        x = residual(x, scaled(128), **options)
    for filters in (64, 32):
        x = transposed(x, scaled(filters), spread(0.02))
    x = conv_norm(x, 1, 7, relu=False, **options | {"norm": None})
    return keras.Model(image, layers.Activation("tanh")(layers.Add()([image, x])))


def build_encoder(size, scaled):
    options = {"norm": batch_norm, "initializer": spread(0.01)}
    image = keras.Input((size, size, 1))
    x = conv_norm(image, scaled(16), 7, **options)
    x = residual(x, scaled(16), **options)
    x = layers.MaxPooling2D()(x)
    x = residual(x, scaled(32), **options)
    x = layers.MaxPooling2D()(x)
    x = residual(x, scaled(64), **options)
    x = residual(x, scaled(64), **options)
    x = layers.MaxPooling2D()(x)
    for filters in (128, 128, 256, 256, 256, 256, 512, 512):
        x = residual(x, scaled(filters), **options)
    low = x
    for _ in range(2):
        x = residual(x, scaled(512), dilation_rate=2, use_bias=True, **options)
    for _ in range(2):
        x = conv_norm(x, scaled(512), 3, **options)
    return keras.Model(image, [x, low])


def build_decoder(size, scaled):
    options = {"norm": instance_norm, "initializer": spread(0.02)}
    features = keras.Input((size // 8, size // 8, scaled(512)))
    image = keras.Input((size, size, 1))
    x = conv_norm(features, scaled(128), 3, **options)
    for _ in range(4):
        x = residual(x, scaled(128), **options | {"initializer": spread(0.01)})
    for filters in (64, 64, 32):
        x = transposed(x, scaled(filters), spread(0.02))
    x = conv_norm(x, 1, 7, relu=False, **options | {"norm": None})
    return keras.Model([features, image], layers.Activation("tanh")(layers.Add()([image, x])))


def build_segmenter(size, scaled, classes):
    features = keras.Input((size // 8, size // 8, scaled(512)))
    x = layers.Conv2D(classes, 1, use_bias=False, kernel_initializer=spread(0.01))(features)
    return keras.Model(features, layers.UpSampling2D(8, interpolation="bilinear")(x))


def build_discriminator(size, scaled, inputs, outputs):
    options = {"padding": "valid", "relu": False, "initializer": spread(0.02)}
    x = image = keras.Input((size, size, inputs))
    for filters, strides, norm in ((64, 2, None), (128, 2, instance_norm), (256, 2, instance_norm)):
        x = conv_norm(layers.ZeroPadding2D(2)(x), scaled(filters), 4, strides, norm=norm, **options)
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = conv_norm(layers.ZeroPadding2D(2)(x), scaled(512), 4, norm=instance_norm, **options)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = conv_norm(layers.ZeroPadding2D(2)(x), outputs, 4, **options)
    return keras.Model(image, x)


def build_networks(size, width=1.0, classes=2):
    """The nine networks, under the names that lusbook gives them; on any backend."""

    def scaled(filters):
        return max(1, round(filters * width))

    return SimpleNamespace(
        generator=build_generator(size, scaled),
        encoder=build_encoder(size, scaled),
        decoder=build_decoder(size, scaled),
        segmenter=build_segmenter(size, scaled, classes),
        segmenter_low=build_segmenter(size, scaled, classes),
        source=build_discriminator(size, scaled, 1, 2),
        target=build_discriminator(size, scaled, 1, 1),
        feature=build_discriminator(size, scaled, classes, 1),
        feature_low=build_discriminator(size, scaled, classes, 1),
    )


# ---------------------------------------------------------------------------------------------
# One iteration


def segmentation_terms(logits, one_hot):
    import tensorflow as tf

    probabilities = tf.nn.softmax(logits)
    weights = 1.0 - tf.reduce_mean(one_hot, (0, 1, 2))
    logs = tf.math.log(tf.clip_by_value(probabilities, 0.005, 1.0))
    cross_entropy = -tf.reduce_mean(tf.reduce_sum(weights * one_hot * logs, -1))
    overlap = tf.reduce_sum(probabilities * one_hot, (0, 1, 2))
    total = tf.reduce_sum(probabilities**2, (0, 1, 2)) + tf.reduce_sum(one_hot, (0, 1, 2))
    return cross_entropy + 1.0 - tf.reduce_mean(2.0 * overlap / (total + 1e-7))


def make_step(networks, learning_rate=2e-4, segmenter_learning_rate=1e-3, epsilon=1e-8):
    """One iteration of sequential updates as one ``tf.function``; without augmentation.

    Parameters
    ----------
    networks : types.SimpleNamespace
        As :func:`build_networks` gives them.
    learning_rate, segmenter_learning_rate, epsilon : float

    Returns
    -------
    step : callable
        ``step(a, one_hot, b, stored_a, stored_b, use_stored)`` updates the networks and returns a dict:
        losses by the names that lusbook gives them, ``fake_a`` and ``fake_b``.
    """
    import tensorflow as tf

    n = networks
    segmentation = [v for m in (n.encoder, n.segmenter, n.segmenter_low) for v in m.trainable_variables]
    optimizers = {
        name: keras.optimizers.Adam(learning_rate, beta_1=0.5, epsilon=epsilon)
        for name in ("generator", "target", "decoder", "source", "feature", "feature_low")
    }
    optimizers["segmentation"] = keras.optimizers.Adam(segmenter_learning_rate, epsilon=epsilon)
    variables = {
        name: segmentation if name == "segmentation" else vars(n)[name].trainable_variables for name in optimizers
    }
    for name, optimizer in optimizers.items():
        optimizer.build(variables[name])

    def gan(scores):
        return tf.reduce_mean((scores - 1.0) ** 2)

    def discern(real, fake):
        return 0.5 * (tf.reduce_mean((real - 1.0) ** 2) + tf.reduce_mean(fake**2))

    def update(name, loss, tape):
        gradients = tape.gradient(loss, [v.value for v in variables[name]])
        optimizers[name].apply(gradients, variables[name])

    def cycles(a, b):
        # Both ways around, as the losses of G, U and E need them.
        fake_b = n.generator(a, training=True)
        z_b, _ = encoded_b = n.encoder(b, training=True)
        z_fake_b, _ = encoded_fake_b = n.encoder(fake_b, training=True)
        fake_a = n.decoder([z_b, b], training=True)
        cycle_a = n.decoder([z_fake_b, fake_b], training=True)
        cycle_b = n.generator(fake_a, training=True)
        loss = 10.0 * tf.reduce_mean(tf.abs(a - cycle_a)) + 10.0 * tf.reduce_mean(tf.abs(b - cycle_b))
        return fake_a, fake_b, encoded_b, encoded_fake_b, loss

    def features(a, b):
        # Without gradient: what D_p and D_p,ll see.
        encoded_fake_b = n.encoder(n.generator(a, training=True), training=True)
        return n.encoder(b, training=True), encoded_fake_b

    @tf.function(autograph=False)
    def step(a, one_hot, b, stored_a, stored_b, use_stored):
        results = {}

        with tf.GradientTape() as tape:
            _, fake_b, _, _, cycle = cycles(a, b)
            fooled = gan(n.target(fake_b, training=True))
            loss = cycle + fooled
        update("generator", loss, tape)
        results |= {"cycle": cycle, "fool_target": fooled, "fake_b": fake_b}

        pooled_b = tf.where(use_stored[1] > 0, stored_b, fake_b)
        with tf.GradientTape() as tape:
            loss = discern(n.target(b, training=True), n.target(pooled_b, training=True))
        update("target", loss, tape)
        results["target"] = loss

        with tf.GradientTape() as tape:
            fake_a, _, encoded_b, encoded_fake_b, cycle = cycles(a, b)
            judged = n.source(fake_a, training=True)
            labelled = segmentation_terms(n.segmenter(encoded_fake_b[0], training=True), one_hot)
            labelled += 0.1 * segmentation_terms(n.segmenter_low(encoded_fake_b[1], training=True), one_hot)
            aligned = 0.1 * gan(n.feature(n.segmenter(encoded_b[0], training=True), training=True))
            aligned += 0.01 * gan(n.feature_low(n.segmenter_low(encoded_b[1], training=True), training=True))
            aligned += 0.1 * gan(judged[..., 1:])
            loss = labelled + aligned + 0.1 * (cycle + gan(judged[..., :1]))
            decayed = loss + 1e-4 * tf.add_n([tf.nn.l2_loss(v.value) for v in segmentation])
        update("segmentation", decayed, tape)
        results |= {"segmentation": labelled, "alignment": aligned}

        with tf.GradientTape() as tape:
            fake_a, _, _, _, cycle = cycles(a, b)
            fooled = gan(n.source(fake_a, training=True)[..., :1])
            loss = cycle + fooled
        update("decoder", loss, tape)
        results |= {"fool_source": fooled, "fake_a": fake_a}

        pooled_a = tf.where(use_stored[0] > 0, stored_a, fake_a)
        fake_b = n.generator(a, training=True)
        cycle_a = n.decoder([n.encoder(fake_b, training=True)[0], fake_b], training=True)
        with tf.GradientTape() as tape:
            real, fake, cycle = (n.source(image, training=True) for image in (a, pooled_a, cycle_a))
            loss = discern(real[..., :1], fake[..., :1]) + discern(cycle[..., 1:], fake[..., 1:])
        update("source", loss, tape)
        results["source"] = loss

        for index, (name, segmenter) in enumerate((("feature", n.segmenter), ("feature_low", n.segmenter_low))):
            critic = vars(n)[name]
            encoded_b, encoded_fake_b = features(a, b)
            real, fake = segmenter(encoded_fake_b[index], training=True), segmenter(encoded_b[index], training=True)
            with tf.GradientTape() as tape:
                loss = discern(critic(real, training=True), critic(fake, training=True))
            update(name, loss, tape)
            results[name] = loss
        return results

    def call(*arrays):
        with default_optimizer():
            return step(*[tf.convert_to_tensor(array) for array in arrays])

    return call


@contextmanager
def default_optimizer():
    """Let TensorFlow rewrite graphs, as it does of itself: lusbook switches that off for the whole process."""
    import tensorflow as tf

    name = "disable_meta_optimizer"
    kept = tf.config.optimizer.get_experimental_options().get(name, False)
    if not kept:
        yield
        return
    tf.config.optimizer.set_experimental_options({name: False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: kept})


# ---------------------------------------------------------------------------------------------
# Comparison with lusbook

KINDS = {"gamma": "scale", "beta": "centre"}


def by_kind(network):
    """Trainable variables of a network in the order of its layers, by kind: kernel, bias, scale, centre."""
    found = {}
    for variable in network.trainable_variables:
        found.setdefault(KINDS.get(variable.name, variable.name), []).append(variable)
    return found


def pairs(networks, plain):
    """Trainable variables of lusbook's networks beside those of the plain ones.

    Returns
    -------
    pairs : list of tuple
        Name of the network, kind, lusbook's variable, the plain one.
    """
    found = []
    for name, network in vars(networks).items():
        ours, theirs = by_kind(network), by_kind(vars(plain)[name])
        assert set(ours) == set(theirs), f"{name}: {sorted(ours)} and {sorted(theirs)}"
        for kind in ours:
            shapes = [[tuple(v.shape) for v in side[kind]] for side in (ours, theirs)]
            assert shapes[0] == shapes[1], f"{name} {kind}: {shapes[0]} and {shapes[1]}"
            found += [(name, kind, *pair) for pair in zip(ours[kind], theirs[kind], strict=True)]
    return found


def moving(network):
    """Moving means and moving variances of a network, each as one array."""
    norms = [layer for layer in network.layers if hasattr(layer, "moving") or hasattr(layer, "moving_mean")]
    pairs = [(n.moving[0], n.moving[1]) if hasattr(n, "moving") else (n.moving_mean, n.moving_variance) for n in norms]
    return [np.concatenate([np.asarray(value) for value in kind]) for kind in zip(*pairs, strict=True)]


def copy_weights(networks, plain):
    """Give the plain networks the weights of lusbook's."""
    for _, _, ours, theirs in pairs(networks, plain):
        theirs.assign(ours.value)


def compare(size=32, width=0.0625, batch=2, iterations=3, slowed=0.01, epsilon=1e-3, seed=0):
    """Train lusbook's networks, sequentially, and the plain ones from the same weights on the same batches.

    Both run operation by operation: building the graphs would take longer. At the published learning
    rates the networks magnify rounding a millionfold in an iteration (Adam's first steps are the learning
    rate times the gradient's sign, and the encoder's many normalisations do the rest): two programs part
    even in float64. Smaller steps keep single precision comparable, and still tell the order of updates:
    simultaneous ones change the losses by 1e-4 to 1e-3.

    Parameters
    ----------
    size, batch, iterations, seed : int
    width : float
    slowed : float
        Factor on both learning rates.
    epsilon : float
        Of Adam, in both.

    Returns
    -------
    differences : dict of float
        The largest difference of each loss and generated image over the iterations, relative to its
        largest value; then of weights, moving means and moving variances, relative to the largest of
        their kind (moving variances are unbiased in lusbook and biased in Keras); and of the changes of
        weights, relative to the variable's largest. Biases are left out: most stand in front of a
        normalisation, and have no gradient but rounding. So are the centres of normalisations from the weights: they
        start at 0, and are what they changed by.
    """
    from lusbook import sifa, training
    from lusbook.settings import make_settings

    rates = {"sifa_learning_rate": 2e-4 * slowed, "sifa_segmenter_learning_rate": 1e-3 * slowed}
    settings = make_settings("smoke", image_size=size, sifa_width=width, sifa_updates="sequential", **rates)
    networks, plain = sifa.build_networks(size, width, seed=seed), build_networks(size, width)
    copy_weights(networks, plain)
    before = [np.asarray(theirs.value).copy() for *_, theirs in pairs(networks, plain)]
    differences = {}
    sifa.Adam, adam = partial(training.Adam, epsilon=epsilon), sifa.Adam
    try:
        step, _ = sifa.make_step(networks, settings)
    finally:
        sifa.Adam = adam
    plain_step = make_step(plain, *rates.values(), epsilon)
    same = common.identity_transforms(batch)
    with common.without_augmentation(), common.untraced():
        for iteration in range(iterations):
            a, b, stored_a, stored_b = (common.random_images(batch, size, (seed, iteration, i)) for i in range(4))
            masks = common.random_masks(batch, size, (seed, iteration))
            use_stored = np.float32([iteration % 2, (iteration + 1) % 2])
            expected = plain_step(a, np.concatenate([1 - masks, masks], -1), b, stored_a, stored_b, use_stored)
            found = step(a, masks, b, same, same, stored_a, stored_b, use_stored)
            for name, value in expected.items():
                note(differences, name, found[name], value)
    for (_, kind, ours, theirs), old in zip(pairs(networks, plain), before, strict=True):
        ours, theirs = np.asarray(ours.value), np.asarray(theirs.value)
        if kind not in ("bias", "centre"):
            note(differences, "weights", ours, theirs)
        if kind in ("kernel", "centre"):  # a scale of 1 has no digits for so small changes
            note(differences, "changes of weights", ours - old, theirs - old)
    for name, *both in zip(("means", "variances"), moving(networks.encoder), moving(plain.encoder), strict=True):
        note(differences, f"moving {name}", *both)
    return differences


def note(differences, name, found, expected):
    """Keep the largest relative difference."""
    found, expected = np.asarray(found), np.asarray(expected)
    difference = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-9)
    differences[name] = max(differences.get(name, 0.0), float(difference))


def main(quick: common.Quick = False, out: common.Out = None):
    """Compare the plain build with lusbook's sequential updates."""
    from lusbook import backend  # noqa: F401  starts the backend quietly

    options = {"size": 32, "width": 0.0625, "batch": 2, "iterations": 1}
    found = compare(**options)
    rows = [common.quantity(f"relative difference, {name}", value, "") for name, value in found.items()]
    common.report("plain_sifa", rows, out, quick, options=options)


if __name__ == "__main__":
    typer.run(main)
