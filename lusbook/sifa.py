"""SIFA: unsupervised domain adaptation by images and features (section 2.2).

Nine networks, their losses and the seven updates, as Chen et al. 2020 and its reference
implementation define them. In names, ``a`` is the labelled source, ``b`` the unlabelled target.
"""

from functools import cached_property
from types import SimpleNamespace

import keras
import numpy as np
from keras import layers, ops

from lusbook import augment, backend
from lusbook.training import Adam

CYCLE = 10.0  # weights of the loss terms, as published
DECODER, FEATURE, FEATURE_LOW, AUXILIARY, LOW, DECAY = 0.1, 0.1, 0.01, 0.1, 0.1, 1e-4

# ---------------------------------------------------------------------------------------------
# Networks


class InstanceNorm(layers.Layer):
    """Normalise each channel of each image; with scale and centre, epsilon 1e-6."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.centre = self.add_weight(shape=(shape[-1],), initializer="zeros", name="centre")

    def call(self, x):
        return backend.instance_norm(x, self.scale.value, self.centre.value, 1e-6)

    def compute_output_shape(self, shape):
        return shape


class BatchNorm(layers.Layer):
    """Batch normalisation in one fused operation; momentum 0.9, epsilon 1e-3."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.centre = self.add_weight(shape=(shape[-1],), initializer="zeros", name="centre")
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False, name="mean")
        self.variance = self.add_weight(shape=(shape[-1],), initializer="ones", trainable=False, name="variance")

    def call(self, x, training=False):
        if training:
            y, mean, variance = backend.batch_norm(x, self.scale.value, self.centre.value, 1e-3)
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
            self.variance.assign(0.9 * self.variance + 0.1 * variance)
            return y
        gain = self.scale * ops.rsqrt(self.variance + 1e-3)
        return x * gain + (self.centre - self.mean * gain)


class Builder:
    """Layers of one network: its channel width, initial spread and seeds."""

    def __init__(self, width, stddev, norm, bias, seed):
        self.width, self.stddev, self.norm, self.bias = width, stddev, norm, bias
        self.seeds = iter(np.random.SeedSequence(seed).generate_state(200))

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
            **options,
        )(x)
        return self.finish(x, norm, relu)

    def transposed(self, x, count):
        """Transposed 3 x 3 convolution that doubles the size, normalisation, ReLU."""
        x = layers.Conv2DTranspose(self.channels(count), 3, 2, "same", kernel_initializer=self.initializer())(x)
        return self.finish(x, True, True)

    def finish(self, x, norm, relu):
        x = self.norm()(x) if norm else x
        return layers.ReLU()(x) if relu else x

    def residual(self, x, count, **options):
        """Two convolutions around a shortcut; a wider block pads the shortcut with zero channels."""
        y = self.conv(x, count, 3, **options)
        y = self.conv(y, count, 3, relu=False, **options)
        missing = y.shape[-1] - x.shape[-1]
        if missing:
            x = ops.pad(x, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
        return layers.ReLU()(x + y)


def build_generator(size, width=1.0, seed=0):
    """Generator: source images to target images, (n, size, size, 1) to the same; ``tanh(input + residual)``."""
    net = Builder(width, 0.02, InstanceNorm, True, seed)
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


def build_encoder(size, width=1.0, seed=0):
    """Encoder: images, (n, size, size, 1), to features and low-level features, both (n, size / 8, size / 8, 512)."""
    net = Builder(width, 0.01, BatchNorm, False, seed)
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
    return keras.Model(inputs, [x, low], name="encoder")


def build_decoder(size, width=1.0, seed=0):
    """Decoder: features and the image they came from to a source image; ``tanh(image + residual)``."""
    net = Builder(width, 0.02, InstanceNorm, False, seed)
    features = keras.Input((size // 8, size // 8, net.channels(512)))
    image = keras.Input((size, size, 1))
    x = net.conv(features, 128, 3)
    for _ in range(4):
        x = net.residual(x, 128)
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


def build_discriminator(size, width=1.0, inputs=1, outputs=1, seed=0, name="discriminator"):
    """PatchGAN discriminator: (n, size, size, inputs) to (n, size / 8 + 3, size / 8 + 3, outputs)."""
    net = Builder(width, 0.02, InstanceNorm, False, seed)
    images = x = keras.Input((size, size, inputs))
    for count, strides, norm in ((64, 2, False), (128, 2, True), (256, 2, True), (512, 1, True)):
        x = layers.ZeroPadding2D(2)(x)
        x = net.conv(x, count, 4, strides, norm=norm, relu=False, padding="valid")
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.ZeroPadding2D(2)(x)
    x = net.conv(x, outputs, 4, norm=False, relu=False, scale=False, padding="valid")
    return keras.Model(images, x, name=name)


def build_networks(size, width=1.0, classes=2, seed=0):
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

    Returns
    -------
    networks : types.SimpleNamespace of keras.Model
        ``generator, encoder, decoder, segmenter, segmenter_low, source, target, feature, feature_low``;
        the last four are the discriminators D_s, D_t, D_p and D_p,ll.
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(9).tolist())

    def critic(name, inputs, outputs):
        return build_discriminator(size, width, inputs, outputs, next(seeds), name)

    return SimpleNamespace(
        generator=build_generator(size, width, next(seeds)),
        encoder=build_encoder(size, width, next(seeds)),
        decoder=build_decoder(size, width, next(seeds)),
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
# Forward pass and losses


class Forward:
    """Images, features and logits of one iteration, each computed when a loss first needs it.

    Parameters
    ----------
    networks : types.SimpleNamespace
    a, b : tensor, shape (n, size, size, 1)
        Source and target images.
    """

    def __init__(self, networks, a, b):
        self.networks, self.a, self.b = networks, a, b

    @cached_property
    def fake_b(self):
        return self.networks.generator(self.a, training=True)

    @cached_property
    def encoded_b(self):
        return self.networks.encoder(self.b, training=True)

    @cached_property
    def encoded_fake_b(self):
        return self.networks.encoder(self.fake_b, training=True)

    @cached_property
    def decoded(self):
        # Instance norm treats every image alone: one call serves both.
        features = ops.concatenate([self.encoded_b[0], self.encoded_fake_b[0]])
        both = self.networks.decoder([features, ops.concatenate([self.b, self.fake_b])], training=True)
        return ops.split(both, 2)

    @property
    def fake_a(self):
        return self.decoded[0]

    @property
    def cycle_a(self):
        return self.decoded[1]

    @cached_property
    def cycle_b(self):
        return self.networks.generator(self.fake_a, training=True)

    @cached_property
    def logits_b(self):
        return self.networks.segmenter(self.encoded_b[0])

    @cached_property
    def logits_fake_b(self):
        return self.networks.segmenter(self.encoded_fake_b[0])

    @cached_property
    def logits_b_low(self):
        return self.networks.segmenter_low(self.encoded_b[1])

    @cached_property
    def logits_fake_b_low(self):
        return self.networks.segmenter_low(self.encoded_fake_b[1])

    @cached_property
    def source_of_fake_a(self):
        return self.networks.source(self.fake_a, training=True)  # (n, ., ., 2)


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


def fool(scores):
    """Least-squares loss of what a discriminator should take for real."""
    return ops.mean((scores - 1) ** 2)


def discern(real, fake):
    """Least-squares loss of a discriminator."""
    return 0.5 * (ops.mean((real - 1) ** 2) + ops.mean(fake**2))


def cycle_loss(f):
    """Ten times the mean absolute error of both cycles."""
    return CYCLE * (ops.mean(ops.abs(f.a - f.cycle_a)) + ops.mean(ops.abs(f.b - f.cycle_b)))


def generator_loss(f):
    """Loss of the generator."""
    return cycle_loss(f) + fool(f.networks.target(f.fake_b, training=True))


def decoder_loss(f):
    """Loss of the decoder."""
    return cycle_loss(f) + fool(f.source_of_fake_a[..., :1])


def segmentation_loss(f, one_hot):
    """Cross-entropy and Dice of the translated source images, from both segmenters."""
    high = weighted_cross_entropy(f.logits_fake_b, one_hot) + dice_loss(f.logits_fake_b, one_hot)
    low = weighted_cross_entropy(f.logits_fake_b_low, one_hot) + dice_loss(f.logits_fake_b_low, one_hot)
    return high + LOW * low


def alignment_loss(f):
    """Adversarial terms of the encoder: logits of both segmenters, and the auxiliary source discriminator."""
    return (
        FEATURE * fool(f.networks.feature(f.logits_b, training=True))
        + FEATURE_LOW * fool(f.networks.feature_low(f.logits_b_low, training=True))
        + AUXILIARY * fool(f.source_of_fake_a[..., 1:])
    )


def target_loss(f, pooled_b):
    """Loss of D_t: real target against pooled generated target."""
    real, fake = ops.split(f.networks.target(ops.concatenate([f.b, pooled_b]), training=True), 2)
    return discern(real, fake)


def source_loss(f, pooled_a):
    """Loss of D_s: real against pooled generated source, and reconstructed against pooled generated source."""
    images = ops.concatenate([f.a, pooled_a, ops.stop_gradient(f.cycle_a)])
    real, fake, cycle = ops.split(f.networks.source(images, training=True), 3)
    return discern(real[..., :1], fake[..., :1]) + discern(cycle[..., 1:], fake[..., 1:])


def feature_loss(critic, real, fake):
    """Loss of D_p or D_p,ll: logits of generated target ("real") against logits of real target."""
    logits = ops.stop_gradient(ops.concatenate([real, fake]))
    return discern(*ops.split(critic(logits, training=True), 2))


# ---------------------------------------------------------------------------------------------
# The seven updates


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


def decay(gradients, variables):
    """Add the gradient of 1e-4 times half the sum of squares of the weights."""
    return [gradient + DECAY * variable for gradient, variable in zip(gradients, variables, strict=True)]


def simultaneous_gradients(networks, a, one_hot, b, pool_a, pool_b):
    """All seven gradients from one shared forward pass, at one set of weights.

    One backward pass of cycle + both adversarial terms is right for generator, decoder and (times
    0.1) encoder at once, as neither adversarial term depends on the other generator; a second one
    takes the segmentation terms, a third all discriminators.

    Parameters
    ----------
    networks : types.SimpleNamespace
    a, b : tensor, shape (n, size, size, 1)
    one_hot : tensor, shape (n, size, size, 2)
    pool_a, pool_b : callable
        Give the image that a discriminator sees for a freshly generated one.

    Returns
    -------
    gradients : dict of list of tensor
    results : dict
        Losses by name, and the images ``fake_a`` and ``fake_b``.
    """
    groups = trainable(networks)
    critics = ("target", "source", "feature", "feature_low")

    def losses():
        f = Forward(networks, a, b)
        images = {"fake_a": ops.stop_gradient(f.fake_a), "fake_b": ops.stop_gradient(f.fake_b)}
        named = {
            "segmentation": segmentation_loss(f, one_hot),
            "cycle": cycle_loss(f),
            "fool_target": fool(f.networks.target(f.fake_b, training=True)),
            "fool_source": fool(f.source_of_fake_a[..., :1]),
            "alignment": alignment_loss(f),
            "target": target_loss(f, pool_b(images["fake_b"])),
            "source": source_loss(f, pool_a(images["fake_a"])),
            "feature": feature_loss(networks.feature, f.logits_fake_b, f.logits_b),
            "feature_low": feature_loss(networks.feature_low, f.logits_fake_b_low, f.logits_b_low),
        }
        image = named["cycle"] + named["fool_target"] + named["fool_source"]
        return [image, named["segmentation"] + named["alignment"], sum(named[c] for c in critics)], named | images

    sizes = [len(groups["generator"]), len(groups["decoder"])]
    image = [*groups["generator"], *groups["decoder"], *networks.encoder.trainable_variables]
    results, found = backend.gradients(
        losses, [image, groups["segmentation"], [v for name in critics for v in groups[name]]]
    )
    gradients = {"generator": found[0][: sizes[0]], "decoder": found[0][sizes[0] : sum(sizes)]}
    encoder = found[0][sum(sizes) :]
    # The encoder shares a tenth of the decoder's loss; the segmenters behind it have no part in it.
    gradients["segmentation"] = decay(
        [g + DECODER * e for g, e in zip(found[1], encoder, strict=False)] + found[1][len(encoder) :],
        groups["segmentation"],
    )
    rest = iter(found[2])
    gradients |= {name: [next(rest) for _ in groups[name]] for name in critics}
    return gradients, results


def sequential_gradient(name, networks, a, one_hot, b, pool_a, pool_b, images):
    """Gradient of one of the seven updates, at the weights as they are now.

    Parameters
    ----------
    name : str
        One of the keys of :func:`trainable`.
    pool_a, pool_b : callable
        As in :func:`simultaneous_gradients`.
    images : dict
        ``fake_b`` and ``fake_a`` as the updates of generator and decoder saw them: the pools take these.

    Returns
    -------
    gradient : list of tensor
    results : dict
        The loss by its name, and the generated images that the update computed.
    """
    f = Forward(networks, a, b)
    terms = {
        "generator": lambda: generator_loss(f),
        "target": lambda: target_loss(f, pool_b(images["fake_b"])),
        "segmentation": lambda: segmentation_loss(f, one_hot) + alignment_loss(f) + DECODER * decoder_loss(f),
        "decoder": lambda: decoder_loss(f),
        "source": lambda: source_loss(f, pool_a(images["fake_a"])),
        "feature": lambda: feature_loss(networks.feature, f.logits_fake_b, f.logits_b),
        "feature_low": lambda: feature_loss(networks.feature_low, f.logits_fake_b_low, f.logits_b_low),
    }

    def losses():
        loss = terms[name]()
        kept = {"generator": "fake_b", "decoder": "fake_a"}.get(name)
        return [loss], {name: loss} | ({kept: ops.stop_gradient(getattr(f, kept))} if kept else {})

    variables = trainable(networks)[name]
    results, (found,) = backend.gradients(losses, [variables])
    return decay(found, variables) if name == "segmentation" else found, results


def make_step(networks, settings):
    """Compile one iteration: the seven updates, sequential or simultaneous.

    The encoder's moving statistics follow every forward pass in training: both domains, once an
    iteration when updates are simultaneous, and in each update that runs the encoder when sequential.

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
    groups = trainable(networks)
    fast, slow = settings.sifa_segmenter_learning_rate, settings.sifa_learning_rate
    optimizers = {
        name: Adam(variables, fast, 0.9) if name == "segmentation" else Adam(variables, slow, 0.5)
        for name, variables in groups.items()
    }
    models = vars(networks).values()
    state = [variable for model in models for variable in model.variables]
    state += [variable for optimizer in optimizers.values() for variable in optimizer.variables]

    def step(a, masks, b, transforms_a, transforms_b, stored_a, stored_b, use_stored):
        # 1. Augment both domains. 2. Gradients, from one forward pass or seven.
        # 3. Adam steps in the published order: G, D_t, (E, C, C_ll), U, D_s, D_p, D_p,ll.
        a, masks = augment.transform(a, masks, transforms_a)
        b, _ = augment.transform(b, ops.zeros_like(b), transforms_b)
        one_hot = ops.concatenate([1 - masks, masks], axis=-1)

        def pool_a(fake):
            return ops.where(use_stored[0] > 0, stored_a, fake)

        def pool_b(fake):
            return ops.where(use_stored[1] > 0, stored_b, fake)

        if settings.sifa_updates == "simultaneous":
            gradients, results = simultaneous_gradients(networks, a, one_hot, b, pool_a, pool_b)
            for name, optimizer in optimizers.items():
                optimizer.apply(gradients[name])
            return results
        results = {}
        for name, optimizer in optimizers.items():
            gradient, new = sequential_gradient(name, networks, a, one_hot, b, pool_a, pool_b, results)
            optimizer.apply(gradient)
            results |= new
        return results

    return backend.compile_step(step, state), state


class ImagePool:
    """The last generated batches of one domain, shown again to its discriminator.

    It fills first; then, with probability one half, it gives back a random stored batch and keeps
    the new one in its place.

    Parameters
    ----------
    size : int
        Batches it holds.
    shape : tuple of int
        Shape of a batch.
    """

    def __init__(self, size, shape):
        self.batches = np.zeros((size, *shape), "float32")
        self.filled = 0

    def draw(self, rng):
        """Decide about the next generated batch.

        Parameters
        ----------
        rng : numpy.random.Generator

        Returns
        -------
        slot : int or None
            Where the generated batch is to be stored.
        use_stored : bool
            Whether the discriminator sees ``batches[slot]`` instead of the generated batch.
        """
        if self.filled < len(self.batches):
            return self.filled, False
        return (int(rng.integers(len(self.batches))), True) if rng.random() < 0.5 else (None, False)

    def put(self, slot, batch):
        """Store a generated batch."""
        if slot is not None:
            self.batches[slot] = batch
            self.filled = max(self.filled, slot + 1)


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
        features, _ = n.encoder(images, training=False)
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
