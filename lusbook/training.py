"""The training loop that U-Net and SIFA share, and its optimiser."""

import sys
import time

import keras
import numpy as np

from lusbook import backend
from lusbook.errors import LusbookError


class Adam:
    """Adam with the usual bias correction, for one group of variables.

    Keras' own optimiser gives the same numbers with some fourteen graph operations per variable;
    SIFA's seven optimisers hold hundreds of variables, and building those operations took longer
    than a short training.

    Parameters
    ----------
    parameters : list of keras.Variable
    learning_rate, beta_1, beta_2, epsilon : float
        As in Kingma & Ba, 2015. The learning rate is a variable, ``rate``: fine-tuning sets it anew.
    """

    def __init__(self, parameters, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
        self.parameters = list(parameters)
        self.constants = (beta_1, beta_2, epsilon)
        self.rate = keras.Variable(learning_rate, dtype="float32", trainable=False)
        zeros = keras.initializers.Zeros()
        self.first, self.second = (
            [keras.Variable(zeros, shape=p.shape, dtype="float32", trainable=False) for p in self.parameters]
            for _ in range(2)
        )
        self.step = keras.Variable(zeros, shape=(), dtype="float32", trainable=False)

    @property
    def variables(self):
        """State of the optimiser: both moments of each parameter, the step count and the learning rate."""
        return [*self.first, *self.second, self.step, self.rate]

    def apply(self, gradients):
        """Take one step."""
        backend.adam(self.parameters, gradients, self.first, self.second, self.step, self.rate.value, *self.constants)


def batch_indices(n, batch_size, iteration, seed):
    """Images of one batch: a function of the iteration alone, so that training can resume anywhere.

    An epoch visits the images in random order; a last incomplete batch is dropped. A cohort smaller
    than a batch is repeated.

    Parameters
    ----------
    n, batch_size, iteration : int
    seed : sequence of int

    Returns
    -------
    indices : ndarray, shape (batch_size,), int

    Examples
    --------
    >>> first, second = (batch_indices(4, 2, iteration, (0,)) for iteration in (0, 1))
    >>> sorted([*first.tolist(), *second.tolist()])
    [0, 1, 2, 3]
    """
    epoch, batch = divmod(iteration, iterations_per_epoch(n, batch_size))
    order = np.random.default_rng([*seed, epoch]).permutation(n)
    return np.resize(order, max(n, batch_size))[batch * batch_size : (batch + 1) * batch_size]


def iterations_per_epoch(n, batch_size):
    """Complete batches in one pass over ``n`` images, at least one."""
    return max(1, n // batch_size)


def fit(step, batch, iterations, label="", every=5.0):
    """Train for a number of iterations.

    Parameters
    ----------
    step : callable
        Takes the arrays that ``batch`` returns, updates weights, returns a dict of losses.
    batch : callable
        Iteration number to a tuple of arrays.
    iterations : int
    label : str
        What the progress lines name: which run of how many.
    every : float
        Seconds between progress lines.

    Returns
    -------
    history : list of dict
        One row for each iteration: its number and every loss.

    Raises
    ------
    LusbookError
        When a loss is not finite: names the loss and the iteration.
    """
    history, start, last = [], time.monotonic(), 0.0
    for iteration in range(iterations):
        losses = {name: float(value) for name, value in step(*batch(iteration)).items()}
        history.append({"iteration": iteration + 1, **losses})
        broken = [name for name, value in losses.items() if not np.isfinite(value)]
        if broken:
            raise LusbookError(f"{label}: loss {broken[0]!r} is {losses[broken[0]]} at iteration {iteration + 1}")
        now = time.monotonic() - start
        if now - last > every or iteration + 1 == iterations:
            last, left = now, now / (iteration + 1) * (iterations - iteration - 1)
            shown = "  ".join(f"{name} {value:.3f}" for name, value in list(losses.items())[:3])
            print(f"{label}  iteration {iteration + 1}/{iterations}  {shown}  left {left:.0f} s", file=sys.stderr)
    return history


def reset(variables, values):
    """Put stored values back, so that one compiled step can serve many runs."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
