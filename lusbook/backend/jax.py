"""The gradient step on JAX."""

from functools import partial

import jax
import jax.numpy as jnp
from keras import StatelessScope


def device():
    """Name of the device that computes."""
    return jax.devices()[0].device_kind


def compile_step(step, variables=(), prepare=None):
    """Compile ``step`` as a pure function of the values of all ``variables`` that it reads or assigns."""
    variables = list(variables)

    @partial(jax.jit, donate_argnums=0)
    def pure(values, arrays):
        with StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            results = step(*(prepare(*arrays) if prepare else arrays))
        return results, [scope.get_current_value(variable) for variable in variables]

    def call(*arrays):
        results, values = pure([variable.value for variable in variables], [jnp.asarray(array) for array in arrays])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return results

    return call


def vjp(function, inputs, variables=()):
    """Compute a function, and keep what its gradients need; see :func:`lusbook.backend.tensorflow.vjp`.

    XLA leaves out what is not asked for.
    """
    variables = list(variables)
    with StatelessScope() as probe:
        outer = probe.original_scope  # the scope of the compiled step: holds the value of every variable

    def pure(values, inputs):
        scope = StatelessScope()
        scope.state_mapping = outer.state_mapping | {id(v): x for v, x in zip(variables, values, strict=True)}
        with scope:
            outputs = function(*inputs)
        # What the function assigned (the state of dropout) must leave the gradient's scope.
        kept = {key: value for key, value in scope.state_mapping.items() if key not in map(id, variables)}
        return outputs, kept

    outputs, back, kept = jax.vjp(pure, [variable.value for variable in variables], list(inputs), has_aux=True)
    outer.state_mapping.update(kept)

    def pull(cotangents, inputs=False, variables=False):
        filled = [jnp.zeros_like(y) if c is None else c for y, c in zip(outputs, cotangents, strict=True)]
        to_variables, to_inputs = back(filled)
        return to_inputs if inputs else None, to_variables if variables else None

    return outputs, pull


def adam(variables, gradients, first, second, step, learning_rate, beta_1, beta_2, epsilon):
    """Adam as TensorFlow's fused kernel computes it; XLA fuses the operations."""
    step.assign(step.value + 1.0)
    rate = learning_rate * jnp.sqrt(1 - beta_2**step.value) / (1 - beta_1**step.value)
    for variable, gradient, m, v in zip(variables, gradients, first, second, strict=True):
        m.assign(beta_1 * m.value + (1 - beta_1) * gradient)
        v.assign(beta_2 * v.value + (1 - beta_2) * gradient**2)
        variable.assign(variable.value - rate * m.value / (jnp.sqrt(v.value) + epsilon))


def batch_norm(x, scale, centre, epsilon):
    """Normalise by the batch's own statistics; returns them with the result (unbiased variance, as TensorFlow's)."""
    mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    count = x.size // x.shape[-1]
    y = (x - mean) * jax.lax.rsqrt(variance + epsilon) * scale + centre
    return y, mean, variance * (count / max(count - 1, 1))


def instance_norm(x, scale, centre, epsilon):
    """Normalise each channel of each image."""
    mean, variance = jnp.mean(x, (1, 2), keepdims=True), jnp.var(x, (1, 2), keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + epsilon) * scale + centre
