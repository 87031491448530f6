"""SIFA: unsupervised domain adaptation by images and features (section 2.2).

Nine networks, their losses and the seven updates, as Chen et al. 2020 and its reference
implementation define them. In names, ``a`` is the labelled source, ``b`` the unlabelled target.
"""

from types import SimpleNamespace

import keras
import numpy as np
from keras import layers, ops

from lusbook import augment, backend
from lusbook.norms import BatchNorm, InstanceNorm, move_statistics
from lusbook.training import Adam

CYCLE = 10.0  # weights of the loss terms, as published
DECODER, FEATURE, FEATURE_LOW, AUXILIARY, LOW, DECAY = 0.1, 0.1, 0.01, 0.1, 0.1, 1e-4

# ---------------------------------------------------------------------------------------------
# Networks


class Builder:
    """Layers of one network: its channel width, initial spread, arithmetic and seeds."""

    def __init__(self, width, stddev, norm, bias, seed, precision="float32"):
        self.width, self.stddev, self.norm, self.bias = width, stddev, norm, bias
        self.policy = "float32" if precision == "float32" else f"mixed_{precision}"
        self.seeds = iter(np.random.SeedSequence(seed).generate_state(200))
        self.statistics = []  # of each batch normalisation

    def channels(self, count):
        """Published channel count, scaled."""
        return max(1, round(count * self.width))

    def initializer(self):
        return keras.initializers.TruncatedNormal(stddev=self.stddev, seed=int(next(self.seeds)))

    def conv(self, x, count, size, strides=1, norm=True, relu=True, bias=None, scale=True, **options):
        """Convolution, normalisation, ReLU."""
        x = layers.Conv2D(
            self.channels(count) if scale else count,
            size,
            strides,
            use_bias=self.bias if bias is None else bias,
            kernel_initializer=self.initializer(),
            padding=options.pop("padding", "same"),
            dtype=self.policy if norm else "float32",  # images, logits and scores stay exact
            **options,
        )(x)
        return self.finish(x, norm, relu)

    def transposed(self, x, count):
        """Transposed 3 x 3 convolution that doubles the size, normalisation, ReLU."""
        layer = layers.Conv2DTranspose(
            self.channels(count), 3, 2, "same", kernel_initializer=self.initializer(), dtype=self.policy
        )
        return self.finish(layer(x), True, True)

    def finish(self, x, norm, relu):
        if norm and self.norm is BatchNorm:
            x, statistics = BatchNorm()(x)
            self.statistics.append(statistics)
        elif norm:
            x = self.norm()(x)
        return layers.ReLU()(x) if relu else x

    def residual(self, x, count, **options):
        """Two convolutions around a shortcut; a wider block pads the shortcut with zero channels."""
        y = self.conv(x, count, 3, **options)
        y = self.conv(y, count, 3, relu=False, **options)
        missing = y.shape[-1] - x.shape[-1]
        if missing:
            x = ops.pad(x, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
        return layers.ReLU()(x + y)


def build_generator(size, width=1.0, seed=0, precision="float32"):
    """Generator: source images to target images, (n, size, size, 1) to the same; ``tanh(input + residual)``."""
    net = Builder(width, 0.02, InstanceNorm, True, seed, precision)
    inputs = keras.Input((size, size, 1))
    x = layers.ZeroPadding2D(3)(inputs)
    x = net.conv(x, 32, 7, padding="valid")  # (n, size, size, 32)
    x = net.conv(x, 64, 3, 2)
    x = net.conv(x, 128, 3, 2)  # (n, size / 4, size / 4, 128)
    for _ in range(9):
        x = net.residual(x, 128)
    x = net.transposed(x, 64)
    x = net.transposed(x, 32)
    x = net.conv(x, 1, 7, norm=False, relu=False, scale=False)
    return keras.Model(inputs, ops.tanh(inputs + x), name="generator")


def build_encoder(size, width=1.0, seed=0, precision="float32"):
    """Encoder: images, (n, size, size, 1), to features and low-level features, both (n, size / 8, size / 8, 512).

    A third output holds the statistics of its batch normalisations, see :func:`lusbook.norms.move_statistics`.
    """
    net = Builder(width, 0.01, BatchNorm, False, seed, precision)
    inputs = keras.Input((size, size, 1))
    x = net.conv(inputs, 16, 7)
    x = net.residual(x, 16)
    x = layers.MaxPooling2D()(x)
    x = net.residual(x, 32)
    x = layers.MaxPooling2D()(x)
    for count in (64, 64):
        x = net.residual(x, count)
    x = layers.MaxPooling2D()(x)
    for count in (128, 128, 256, 256, 256, 256, 512, 512):
        x = net.residual(x, count)
    low = x  # (n, size / 8, size / 8, 512)
    for _ in range(2):
        x = net.residual(x, 512, dilation_rate=2, bias=True)
    for _ in range(2):
        x = net.conv(x, 512, 3)
    return keras.Model(inputs, [x, low, ops.concatenate(net.statistics, axis=-1)], name="encoder")


def build_decoder(size, width=1.0, seed=0, precision="float32"):
    """Decoder: features and the image they came from to a source image; ``tanh(image + residual)``."""
    net = Builder(width, 0.02, InstanceNorm, False, seed, precision)
    features = keras.Input((size // 8, size // 8, net.channels(512)))
    image = keras.Input((size, size, 1))
    x = net.conv(features, 128, 3)
    net.stddev = 0.01  # of the residual blocks alone, as in the reference implementation
    for _ in range(4):
        x = net.residual(x, 128)
    net.stddev = 0.02
    for count in (64, 64, 32):
        x = net.transposed(x, count)
    x = net.conv(x, 1, 7, norm=False, relu=False, scale=False)
    return keras.Model([features, image], ops.tanh(image + x), name="decoder")


def build_segmenter(size, width=1.0, classes=2, seed=0, name="segmenter"):
    """Segmenter: features to logits of the classes, (n, size, size, classes)."""
    net = Builder(width, 0.01, None, False, seed)
    features = keras.Input((size // 8, size // 8, net.channels(512)))
    x = net.conv(features, classes, 1, norm=False, relu=False, scale=False)
    return keras.Model(features, layers.UpSampling2D(8, interpolation="bilinear")(x), name=name)


def build_discriminator(size, width=1.0, inputs=1, outputs=1, seed=0, name="discriminator", precision="float32"):
    """PatchGAN discriminator: (n, size, size, inputs) to (n, size / 8 + 3, size / 8 + 3, outputs)."""
    net = Builder(width, 0.02, InstanceNorm, False, seed, precision)
    images = x = keras.Input((size, size, inputs))
    for count, strides, norm in ((64, 2, False), (128, 2, True), (256, 2, True), (512, 1, True)):
        x = layers.ZeroPadding2D(2)(x)
        x = net.conv(x, count, 4, strides, norm=norm, relu=False, padding="valid")
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.ZeroPadding2D(2)(x)
    x = net.conv(x, outputs, 4, norm=False, relu=False, scale=False, padding="valid")
    return keras.Model(images, x, name=name)


def build_networks(size, width=1.0, classes=2, seed=0, precision="float32"):
    """All nine networks, each with weights from its own seed.

    Parameters
    ----------
    size : int
        Side of the images, px; divisible by 8.
    width : float
        Factor on every channel count; 1.0 is the published width.
    classes : int
        Two here: background and B-line.
    seed : int
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions that a normalisation follows; weights and all else are float32.

    Returns
    -------
    networks : types.SimpleNamespace of keras.Model
        ``generator, encoder, decoder, segmenter, segmenter_low, source, target, feature, feature_low``;
        the last four are the discriminators D_s, D_t, D_p and D_p,ll.
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(9).tolist())

    def critic(name, inputs, outputs):
        return build_discriminator(size, width, inputs, outputs, next(seeds), name, precision)

    return SimpleNamespace(
        generator=build_generator(size, width, next(seeds), precision),
        encoder=build_encoder(size, width, next(seeds), precision),
        decoder=build_decoder(size, width, next(seeds), precision),
        segmenter=build_segmenter(size, width, classes, next(seeds)),
        segmenter_low=build_segmenter(size, width, classes, next(seeds), "segmenter_low"),
        source=critic("source", 1, 2),
        target=critic("target", 1, 1),
        feature=critic("feature", classes, 1),
        feature_low=critic("feature_low", classes, 1),
    )


def count_parameters(networks):
    """Trainable parameters of each network, by name."""
    return {
        name: sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)
        for name, network in vars(networks).items()
    }


# ---------------------------------------------------------------------------------------------
# Losses


def weighted_cross_entropy(logits, one_hot):
    """Cross-entropy over the batch; a class weighs one minus its share of the label pixels, log clipped at 0.005.

    Parameters
    ----------
    logits, one_hot : tensor, shape (n, size, size, classes)
    """
    weights = 1 - ops.mean(one_hot, axis=(0, 1, 2))
    logs = ops.log(ops.clip(ops.softmax(logits), 0.005, 1.0))
    return -ops.sum(weights * ops.mean(one_hot * logs, axis=(0, 1, 2)))


def dice_loss(logits, one_hot):
    """Soft Dice loss over the batch, mean over classes, squared prediction in the denominator."""
    probabilities = ops.softmax(logits)
    overlap = ops.sum(probabilities * one_hot, axis=(0, 1, 2))
    total = ops.sum(probabilities * probabilities, axis=(0, 1, 2)) + ops.sum(one_hot, axis=(0, 1, 2))
    return 1 - ops.mean(2 * overlap / (total + 1e-7))


def segmentation_loss(logits, logits_low, one_hot):
    """Cross-entropy and Dice of translated source images, from both segmenters."""
    high = weighted_cross_entropy(logits, one_hot) + dice_loss(logits, one_hot)
    low = weighted_cross_entropy(logits_low, one_hot) + dice_loss(logits_low, one_hot)
    return high + LOW * low


def cycle_loss(image, cycle):
    """Ten times the mean absolute error of one cycle."""
    return CYCLE * ops.mean(ops.abs(image - cycle))


def fool(scores):
    """Least-squares loss of what a discriminator should take for real."""
    return ops.mean((scores - 1) ** 2)


def discern(real, fake):
    """Least-squares loss of a discriminator."""
    return 0.5 * (ops.mean((real - 1) ** 2) + ops.mean(fake**2))


def discern_halves(scores):
    """Loss of D_t, D_p or D_p,ll: the first half of the batch is real, the second generated."""
    return discern(*ops.split(scores, 2))


def discern_source(scores):
    """Loss of D_s: real against pooled generated source, and reconstructed against pooled generated source."""
    real, fake, cycle = ops.split(scores, 3)
    return discern(real[..., :1], fake[..., :1]) + discern(cycle[..., 1:], fake[..., 1:])


# ---------------------------------------------------------------------------------------------
# The seven updates
#
# Gradients are taken network by network: what a network passes back to its input, and what its weights receive, are
# asked for where an update needs them. So no update pays for another's, and what no update changed since is kept.


def trainable(networks):
    """Variables of the seven updates, in their order."""
    n = networks
    segmentation = [*n.encoder.trainable_variables, *n.segmenter.trainable_variables]
    return {
        "generator": n.generator.trainable_variables,
        "target": n.target.trainable_variables,
        "segmentation": [*segmentation, *n.segmenter_low.trainable_variables],
        "decoder": n.decoder.trainable_variables,
        "source": n.source.trainable_variables,
        "feature": n.feature.trainable_variables,
        "feature_low": n.feature_low.trainable_variables,
    }


def forward(network, *inputs):
    """A network's outputs in training, and what takes their gradients back (:func:`lusbook.backend.vjp`)."""

    def outputs(*tensors):
        found = network(list(tensors) if len(tensors) > 1 else tensors[0], training=True)
        return list(found) if isinstance(found, list | tuple) else [found]

    return backend.vjp(outputs, inputs, network.trainable_variables)


def slope(loss, *tensors):
    """A loss, and its gradient with respect to each tensor."""
    (value,), pull = backend.vjp(lambda *x: [loss(*x)], tensors)
    return value, *pull([ops.ones_like(value)], inputs=True)[0]


def fooled(critic, image):
    """Loss of an image that should pass for real, and its gradient with respect to the image."""
    (scores,), back = forward(critic, image)
    value, to_scores = slope(fool, scores)
    return value, back([to_scores], inputs=True)[0][0]


def learn(critic, loss, *images):
    """Loss of a discriminator on images side by side, and its gradient with respect to the weights."""
    (scores,), back = forward(critic, ops.concatenate(images))
    value, to_scores = slope(loss, scores)
    return value, back([to_scores], variables=True)[1]


def source_fooled(critic, fake_a):
    """Both losses of D_s's two channels on generated source images, and the gradient of each."""
    (scores,), back = forward(critic, fake_a)
    values, gradients = [], []
    for loss in (lambda s: fool(s[..., :1]), lambda s: fool(s[..., 1:])):
        value, to_scores = slope(loss, scores)
        values.append(value)
        gradients.append(back([to_scores], inputs=True)[0][0])
    return values, gradients


def segment(networks, encoded_b, encoded_fake_b, one_hot):
    """Segmentation and feature alignment: losses, and gradients with respect to features and segmenters.

    Parameters
    ----------
    networks : types.SimpleNamespace
    encoded_b, encoded_fake_b : list of tensor
        Features and low-level features of target and of translated source images.
    one_hot : tensor, shape (n, size, size, 2)

    Returns
    -------
    losses : dict
        ``segmentation`` and ``alignment``, the latter weighted.
    to_b, to_fake_b : list of tensor
        Gradients with respect to both kinds of features.
    to_segmenters : list of tensor
        Gradients of the variables of both segmenters.
    logits : list of tensor
        Of both segmenters, translated source before target.
    """
    n = networks
    kinds = ((n.segmenter, n.feature, FEATURE), (n.segmenter_low, n.feature_low, FEATURE_LOW))
    alignment, to_b, to_fake_b, to_segmenters, logits, passes = 0.0, [], [], [], [], []
    for (segmenter, _, _), z_b, z_fake_b in zip(kinds, encoded_b, encoded_fake_b, strict=True):
        (both,), back = forward(segmenter, ops.concatenate([z_fake_b, z_b]))
        logits.append(both)
        passes.append(back)
    halves = [ops.split(both, 2) for both in logits]
    segmentation, *to_logits = slope(lambda p, q: segmentation_loss(p, q, one_hot), halves[0][0], halves[1][0])
    for (_, critic, weight), (_, p_b), to_p, back in zip(kinds, halves, to_logits, passes, strict=True):
        value, to_p_b = fooled(critic, p_b)
        alignment = alignment + weight * value
        (to_features,), found = back([ops.concatenate([to_p, weight * to_p_b])], inputs=True, variables=True)
        to_segmenters += found
        fake, real = ops.split(to_features, 2)
        to_fake_b.append(fake)
        to_b.append(real)
    return {"segmentation": segmentation, "alignment": alignment}, to_b, to_fake_b, to_segmenters, logits


def decay(gradients, variables):
    """Add the gradient of 1e-4 times half the sum of squares of the weights."""
    return [gradient + DECAY * variable for gradient, variable in zip(gradients, variables, strict=True)]


def add(one, other):
    """Sum of gradients, tensor by tensor."""
    return [x + y for x, y in zip(one, other, strict=True)]


def simultaneous(networks, a, one_hot, b, pool_a, pool_b, update):
    """All seven updates from one shared forward pass, at one set of weights.

    Parameters
    ----------
    networks : types.SimpleNamespace
    a, b : tensor, shape (n, size, size, 1)
        Source and target images.
    one_hot : tensor, shape (n, size, size, 2)
        Labels of the source images.
    pool_a, pool_b : callable
        Give the image that a discriminator sees for a freshly generated one.
    update : callable
        ``update(name, gradients)`` takes one of the seven steps; the names are those of :func:`trainable`.

    Returns
    -------
    results : dict
        Losses by name, and the images ``fake_a`` and ``fake_b``.
    """
    n, results, gradients = networks, {}, {}
    # 1. Forward: every network once on each of its images. Instance norm treats every image alone, so that one
    # call of the decoder serves both domains; batch norm does not, so that the encoder takes two.
    (fake_b,), back_fake_b = forward(n.generator, a)
    (*encoded_b, statistics_b), back_b = forward(n.encoder, b)
    (*encoded_fake_b, statistics_fake_b), back_encoded = forward(n.encoder, fake_b)
    features = ops.concatenate([encoded_b[0], encoded_fake_b[0]])
    (decoded,), back_decoded = forward(n.decoder, features, ops.concatenate([b, fake_b]))
    fake_a, cycle_a = ops.split(decoded, 2)
    (cycle_b,), back_cycle_b = forward(n.generator, fake_a)

    # 2. Images: neither adversarial term depends on the other generator, so one backward pass is right for both.
    loss_a, to_cycle_a = slope(lambda x: cycle_loss(a, x), cycle_a)
    loss_b, to_cycle_b = slope(lambda x: cycle_loss(b, x), cycle_b)
    results["fool_target"], to_fake_b = fooled(n.target, fake_b)
    (results["fool_source"], auxiliary), (to_fake_a, to_fake_a_auxiliary) = source_fooled(n.source, fake_a)
    (through_cycle,), generator_2 = back_cycle_b([to_cycle_b], inputs=True, variables=True)
    to_decoded = ops.concatenate([to_fake_a + through_cycle, to_cycle_a])
    (to_features, to_images), gradients["decoder"] = back_decoded([to_decoded], inputs=True, variables=True)
    image_b, image_fake_b = ops.split(to_features, 2)
    (through_encoder,), _ = back_encoded([image_fake_b, None, None], inputs=True)
    to_fake_b = to_fake_b + through_encoder + ops.split(to_images, 2)[1]
    _, generator_1 = back_fake_b([to_fake_b], variables=True)
    gradients["generator"] = add(generator_1, generator_2)

    # 3. Features: the encoder's own terms, and its share of the decoder's, in one backward pass a domain.
    losses, to_b, to_encoded, to_segmenters, logits = segment(n, encoded_b, encoded_fake_b, one_hot)
    silent = ops.concatenate([to_fake_a_auxiliary, ops.zeros_like(cycle_a)])
    auxiliary_b = ops.split(back_decoded([silent], inputs=True)[0][0], 2)[0]
    to_b[0] = to_b[0] + DECODER * image_b + AUXILIARY * auxiliary_b
    to_encoded[0] = to_encoded[0] + DECODER * image_fake_b
    encoder = add(back_b([*to_b, None], variables=True)[1], back_encoded([*to_encoded, None], variables=True)[1])
    gradients["segmentation"] = [*encoder, *to_segmenters]
    results |= {"cycle": loss_a + loss_b, "segmentation": losses["segmentation"]}
    results["alignment"] = losses["alignment"] + AUXILIARY * auxiliary

    # 4. Discriminators.
    results["target"], gradients["target"] = learn(n.target, discern_halves, b, pool_b(fake_b))
    results["source"], gradients["source"] = learn(n.source, discern_source, a, pool_a(fake_a), cycle_a)
    results["feature"], gradients["feature"] = learn(n.feature, discern_halves, logits[0])
    results["feature_low"], gradients["feature_low"] = learn(n.feature_low, discern_halves, logits[1])
    for name in trainable(n):
        update(name, gradients[name])
    move_statistics(n.encoder, [statistics_b, statistics_fake_b])
    return results | {"fake_a": fake_a, "fake_b": fake_b}


def sequential(networks, a, one_hot, b, pool_a, pool_b, update):
    """The seven updates one after the other, each at the weights that the ones before left.

    Equal to seven forward and backward passes of everything. Here each update computes only what its own loss needs,
    and takes over what no update changed since it was computed. Parameters and returns as :func:`simultaneous`.
    """
    n, results = networks, {}
    # 1. Generator, through both cycles.
    (fake_b,), back_fake_b = forward(n.generator, a)
    (*encoded_b, statistics_1), back_b = forward(n.encoder, b)
    (encoded_fake_b, _, statistics_2), back_encoded = forward(n.encoder, fake_b)
    (fake_a,), back_fake_a = forward(n.decoder, encoded_b[0], b)
    (cycle_a,), back_cycle_a = forward(n.decoder, encoded_fake_b, fake_b)
    (cycle_b,), back_cycle_b = forward(n.generator, fake_a)
    loss_a, to_cycle_a = slope(lambda x: cycle_loss(a, x), cycle_a)
    loss_b, to_cycle_b = slope(lambda x: cycle_loss(b, x), cycle_b)
    results["cycle"] = loss_a + loss_b
    results["fool_target"], to_fake_b = fooled(n.target, fake_b)
    (to_features, to_image), _ = back_cycle_a([to_cycle_a], inputs=True)
    (through_encoder,), _ = back_encoded([to_features, None, None], inputs=True)
    _, generator_1 = back_fake_b([to_fake_b + to_image + through_encoder], variables=True)
    _, generator_2 = back_cycle_b([to_cycle_b], variables=True)
    update("generator", add(generator_1, generator_2))

    # 2. Target discriminator: the pool takes the image that the generator was updated on.
    results["fake_b"] = fake_b
    results["target"], gradient = learn(n.target, discern_halves, b, pool_b(fake_b))
    update("target", gradient)

    # 3. Encoder and segmenters. The generator is new; real target images and their translation stand.
    fake_b = n.generator(a, training=True)
    (*encoded_fake_b, statistics_3), back_encoded = forward(n.encoder, fake_b)
    (cycle_a,), back_cycle_a = forward(n.decoder, encoded_fake_b[0], fake_b)
    (cycle_b,), back_cycle_b = forward(n.generator, fake_a)
    _, to_cycle_a = slope(lambda x: cycle_loss(a, x), cycle_a)
    _, to_cycle_b = slope(lambda x: cycle_loss(b, x), cycle_b)
    losses, to_b, to_encoded, to_segmenters, _ = segment(n, encoded_b, encoded_fake_b, one_hot)
    (scores,), back_scores = forward(n.source, fake_a)
    _, to_scores = slope(lambda s: DECODER * fool(s[..., :1]) + AUXILIARY * fool(s[..., 1:]), scores)
    auxiliary = fool(scores[..., 1:])
    to_fake_a = back_scores([to_scores], inputs=True)[0][0] + DECODER * back_cycle_b([to_cycle_b], inputs=True)[0][0]
    to_b[0] = to_b[0] + back_fake_a([to_fake_a], inputs=True)[0][0]
    to_encoded[0] = to_encoded[0] + DECODER * back_cycle_a([to_cycle_a], inputs=True)[0][0]
    encoder = add(back_b([*to_b, None], variables=True)[1], back_encoded([*to_encoded, None], variables=True)[1])
    results["segmentation"] = losses["segmentation"]
    results["alignment"] = losses["alignment"] + AUXILIARY * auxiliary
    update("segmentation", [*encoder, *to_segmenters])

    # 4. Decoder: the encoder is new, for both domains; from here on it and the generator stand.
    *encoded_b, statistics_4 = n.encoder(b, training=True)
    *encoded_fake_b, statistics_5 = n.encoder(fake_b, training=True)
    features = ops.concatenate([encoded_b[0], encoded_fake_b[0]])
    images = ops.concatenate([b, fake_b])
    (decoded,), back_decoded = forward(n.decoder, features, images)
    fake_a, cycle_a = ops.split(decoded, 2)
    (cycle_b,), back_cycle_b = forward(n.generator, fake_a)
    _, to_cycle_a = slope(lambda x: cycle_loss(a, x), cycle_a)
    _, to_cycle_b = slope(lambda x: cycle_loss(b, x), cycle_b)
    (results["fool_source"], _), (to_fake_a, _) = source_fooled(n.source, fake_a)
    to_fake_a = to_fake_a + back_cycle_b([to_cycle_b], inputs=True)[0][0]
    update("decoder", back_decoded([ops.concatenate([to_fake_a, to_cycle_a])], variables=True)[1])

    # 5. Source discriminator: the pool takes the image that the decoder was updated on; the cycle is new.
    results["fake_a"] = fake_a
    cycle_a = n.decoder([encoded_fake_b[0], fake_b], training=True)
    results["source"], gradient = learn(n.source, discern_source, a, pool_a(fake_a), cycle_a)
    update("source", gradient)

    # 6., 7. Feature discriminators.
    for name, segmenter, z_b, z_fake_b in zip(
        ("feature", "feature_low"), (n.segmenter, n.segmenter_low), encoded_b, encoded_fake_b, strict=True
    ):
        logits = segmenter(ops.concatenate([z_fake_b, z_b]))
        results[name], gradient = learn(getattr(n, name), discern_halves, logits)
        update(name, gradient)

    # Moving statistics as if every update had passed anew what its loss needs.
    again = [statistics_5, statistics_4]
    passes = [statistics_1, statistics_2, statistics_1, statistics_3, statistics_4, statistics_5, statistics_5]
    move_statistics(n.encoder, [*passes, *again, *again])
    return results


def make_step(networks, settings):
    """Compile one iteration: augmentation and the seven updates, sequential or simultaneous.

    Parameters
    ----------
    networks : types.SimpleNamespace
    settings : Settings

    Returns
    -------
    step : callable
        ``step(a, masks, b, transforms_a, transforms_b, stored_a, stored_b, use_stored)`` updates the
        networks and returns a dict of losses and the images ``fake_a`` and ``fake_b``. ``use_stored``,
        shape (2,), says for each domain whether the discriminator sees the stored batch.
    state : list of keras.Variable
        Everything that an iteration changes.
    """
    fast, slow = settings.sifa_segmenter_learning_rate, settings.sifa_learning_rate
    groups = trainable(networks)
    optimizers = {
        name: Adam(variables, fast, 0.9) if name == "segmentation" else Adam(variables, slow, 0.5)
        for name, variables in groups.items()
    }
    models = vars(networks).values()
    state = [variable for model in models for variable in model.variables]
    state += [variable for optimizer in optimizers.values() for variable in optimizer.variables]
    algorithm = {"sequential": sequential, "simultaneous": simultaneous}[settings.sifa_updates]

    def prepare(a, masks, b, transforms_a, transforms_b, *rest):
        a, masks = augment.transform(a, masks, transforms_a)
        b, _ = augment.transform(b, ops.zeros_like(b), transforms_b)
        return a, ops.concatenate([1 - masks, masks], axis=-1), b, *rest

    def step(a, one_hot, b, stored_a, stored_b, use_stored):
        def pool_a(fake):
            return ops.where(use_stored[0] > 0, stored_a, fake)

        def pool_b(fake):
            return ops.where(use_stored[1] > 0, stored_b, fake)

        def update(name, gradients):
            gradients = decay(gradients, groups[name]) if name == "segmentation" else gradients
            optimizers[name].apply(gradients)

        return algorithm(networks, a, one_hot, b, pool_a, pool_b, update)

    return backend.compile_step(step, state, prepare), state


class ImagePool:
    """The last generated batches of one domain, shown again to its discriminator.

    It fills first, one batch an iteration; then, with probability one half, it gives back a random
    stored batch and keeps the new one in its place.

    Parameters
    ----------
    size : int
        Batches it holds.
    shape : tuple of int
        Shape of a batch.
    """

    def __init__(self, size, shape):
        self.batches = np.zeros((size, *shape), "float32")

    def draw(self, rng, iteration):
        """Decide about the next generated batch.

        Parameters
        ----------
        rng : numpy.random.Generator
        iteration : int
            Counted from 0.

        Returns
        -------
        slot : int or None
            Where the generated batch is to be stored.
        use_stored : bool
            Whether the discriminator sees ``batches[slot]`` instead of the generated batch.
        """
        if iteration < len(self.batches):
            return iteration, False
        return (int(rng.integers(len(self.batches))), True) if rng.random() < 0.5 else (None, False)

    def put(self, slot, batch):
        """Store a generated batch."""
        if slot is not None:
            self.batches[slot] = batch


# ---------------------------------------------------------------------------------------------
# Segmentation


def make_predict(networks):
    """Compile inference, directly and through the generator.

    Returns
    -------
    direct, translated : callable
        Images, (n, size, size, 1), to probabilities of B-line, (n, size, size).
    """
    n = networks
    variables = [v for model in (n.generator, n.encoder, n.segmenter) for v in model.variables]

    def direct(images):
        features, *_ = n.encoder(images, training=False)
        return ops.softmax(n.segmenter(features))[..., 1]

    def translated(images):
        return direct(n.generator(images, training=False))

    return backend.compile_step(direct, variables), backend.compile_step(translated, variables)


def make_translate(networks):
    """Compile the translations of both domains, for figures.

    Returns
    -------
    translate : callable
        Images to a dict: ``source`` (fake target, cycle back) and ``target`` (fake source, cycle back).
    """
    n = networks

    def translate(images):
        fake_b, fake_a = n.generator(images), n.decoder([n.encoder(images)[0], images])
        cycle_a = n.decoder([n.encoder(fake_b)[0], fake_b])
        return {
            "source": {"fake": fake_b, "cycle": cycle_a},
            "target": {"fake": fake_a, "cycle": n.generator(fake_a)},
        }

    variables = [v for model in (n.generator, n.encoder, n.decoder) for v in model.variables]
    return backend.compile_step(translate, variables)
