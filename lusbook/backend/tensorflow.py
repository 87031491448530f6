"""The gradient step on TensorFlow."""

import tensorflow as tf

# Grappler's rewriting of SIFA's graph takes longer than it saves in a short run.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def device():
    """Name of the device that computes."""
    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"


def compile_step(step, variables=(), prepare=None):
    """Compile ``step``; XLA only on a GPU (on a CPU it makes Dropout several times slower).

    Parameters
    ----------
    step : callable
    variables : list of keras.Variable
        Every variable that ``step`` reads or assigns.
    prepare : callable, optional
        Turns what the compiled function takes into what ``step`` takes; XLA has no kernel for augmentation's
        transform, so it stays outside.

    Returns
    -------
    compiled : callable
        Takes arrays, returns what ``step`` returns.
    """
    del variables  # TensorFlow updates variables in place
    inner = tf.function(step, autograph=False, jit_compile=bool(tf.config.list_physical_devices("GPU")))
    outer = tf.function(lambda *arrays: inner(*prepare(*arrays)), autograph=False) if prepare else inner
    return lambda *arrays: outer(*[tf.convert_to_tensor(array) for array in arrays])


def vjp(function, inputs, variables=()):
    """Compute a function, and keep what its gradients need.

    Parameters
    ----------
    function : callable
        Takes the inputs, returns a list of tensors.
    inputs : list of tensor
    variables : list of keras.Variable

    Returns
    -------
    outputs : list of tensor
    pull : callable
        ``pull(cotangents, inputs=False, variables=False)`` takes the gradient of a scalar with respect to each output
        (``None`` where it has none) to that with respect to the inputs and to the variables; returns a list for each
        of both, ``None`` where it was not asked for. What is not asked for is not computed.
    """
    values, inputs = [variable.value for variable in variables], list(inputs)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch([*inputs, *values])
        outputs = function(*inputs)

    def pull(cotangents, inputs=False, variables=False, sources=(inputs, values)):
        wanted = [tensors if asked else [] for tensors, asked in zip(sources, (inputs, variables), strict=True)]
        pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[1] is not None]
        found = tape.gradient(
            [output for output, _ in pairs],
            [*wanted[0], *wanted[1]],
            output_gradients=[cotangent for _, cotangent in pairs],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        count = len(wanted[0])
        return found[:count] if inputs else None, found[count:] if variables else None

    return outputs, pull


def adam(variables, gradients, first, second, step, learning_rate, beta_1, beta_2, epsilon):
    """Adam, one fused kernel per variable: Keras' own optimiser adds some fourteen operations for each."""
    step.assign_add(1.0)
    powers = tf.pow(beta_1, step.value), tf.pow(beta_2, step.value)
    for variable, gradient, m, v in zip(variables, gradients, first, second, strict=True):
        tf.raw_ops.ResourceApplyAdam(
            var=variable.value.handle,
            m=m.value.handle,
            v=v.value.handle,
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=learning_rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=gradient,
        )


def batch_norm(x, scale, centre, epsilon):
    """Normalise by the batch's own statistics in one fused kernel; returns them with the result."""
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=centre, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    return y, mean, variance


def instance_norm(x, scale, centre, epsilon):
    """Normalise each channel of each image: batch normalisation in which every image has channels of its own.

    The gradient is written out: TensorFlow's would take three times as many operations.
    """
    n, height, width, channels = x.shape

    def lined(x):
        return tf.reshape(tf.transpose(x, [1, 2, 0, 3]), [1, height, width, n * channels])

    def back(y):
        return tf.transpose(tf.reshape(y, [height, width, n, channels]), [2, 0, 1, 3])

    @tf.custom_gradient
    def normalise(x, scale, centre):
        columns, scales = lined(x), tf.tile(scale, [n])
        y, _, _, *reserved = tf.raw_ops.FusedBatchNormV3(
            x=columns, scale=scales, offset=tf.tile(centre, [n]), mean=[], variance=[], epsilon=epsilon
        )

        def gradient(dy):
            dx, dscale, dcentre, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=lined(dy),
                x=columns,
                scale=scales,
                reserve_space_1=reserved[0],
                reserve_space_2=reserved[1],
                reserve_space_3=reserved[2],
                epsilon=epsilon,
            )
            return back(dx), *(tf.reduce_sum(tf.reshape(d, [n, channels]), 0) for d in (dscale, dcentre))

        return back(y), gradient

    return normalise(x, scale, centre)
