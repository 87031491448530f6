"""The training loop that U-Net and SIFA share, and its optimiser."""

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager

import keras
import numpy as np
import pandas as pd

from lusbook import backend, checkpoints
from lusbook.errors import Interrupted, LusbookError, OutOfTime


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
        """State of the optimiser, both moments of each parameter, the step count and the learning rate."""
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


def fit(
    step,
    batch,
    iterations,
    label="",
    *,
    state=(),
    pools=(),
    after=None,
    folder=None,
    key="",
    deadline=None,
    every=5.0,
):
    """Train for a number of iterations, or go on with a training that was interrupted.

    Ctrl-C and SIGTERM stop it at the end of an iteration, with a checkpoint; a second Ctrl-C stops it at once.

    Parameters
    ----------
    step : callable
        Takes the arrays that ``batch`` returns, updates weights, returns a dict of losses.
    batch : callable
        Iteration number, from 0, to a tuple of arrays; with ``state`` and ``pools`` all that an iteration depends on.
    iterations : int
    label : str
        What the progress lines name: which run of how many.
    state : list of keras.Variable
        Everything that ``step`` and ``after`` change.
    pools : list of ndarray
        Arrays that they change in place.
    after : callable, optional
        Called with the number of complete iterations after each of them, before a checkpoint is written.
    folder : path, optional
        Where checkpoints are, one a minute; without, none are written.
    key : str
        What the run is, as :func:`lusbook.checkpoints.save` takes it.
    deadline : float, optional
        Value of ``time.monotonic()`` at which to stop.
    every : float
        Seconds between progress lines.

    Returns
    -------
    history : list of dict
        One row for each iteration: its number and every loss.

    Raises
    ------
    Interrupted, OutOfTime
        When it was asked to stop, or the deadline has passed: says at which iteration.
    LusbookError
        When a loss is not finite: names the loss and the iteration. The losses are then in ``history.csv``.
    """
    first, history = 0, []
    if folder is not None and (found := checkpoints.load(folder, key)):
        first, arrays, history = found
        _restore(state, pools, arrays)
        print(f"{label}  goes on from iteration {first}/{iterations}", file=sys.stderr)
    saved, seconds = first, checkpoints.interval()
    start, last = time.monotonic(), 0.0
    due = start + seconds

    def save(iteration):
        nonlocal saved, due
        if folder is not None and iteration > saved:
            checkpoints.save(folder, key, iteration, [*(np.asarray(v.value) for v in state), *pools], history)
            saved, due = iteration, time.monotonic() + seconds

    def stop(error, reason, iteration):
        save(iteration)
        then = "the same command goes on from there" if folder is not None else "nothing is kept"
        raise error(f"{label}: {reason} at iteration {iteration} of {iterations}; {then}")

    with _postponed_signals() as asked:
        for iteration in range(first, iterations):
            if asked:
                stop(Interrupted, "interrupted", iteration)
            if deadline is not None and time.monotonic() > deadline:
                stop(OutOfTime, "time is up", iteration)
            losses = {name: float(value) for name, value in step(*batch(iteration)).items()}
            history.append({"iteration": iteration + 1, **losses})
            broken = [name for name, value in losses.items() if not np.isfinite(value)]
            if broken:
                kept = _write_history(folder, history)
                raise LusbookError(
                    f"{label}: loss {broken[0]!r} is {losses[broken[0]]} at iteration {iteration + 1}{kept}"
                )
            if after is not None:
                after(iteration + 1)
            if time.monotonic() >= due:
                save(iteration + 1)
            now = time.monotonic() - start
            if now - last > every or iteration + 1 == iterations:
                last, left = now, now / (iteration + 1 - first) * (iterations - iteration - 1)
                shown = "  ".join(f"{name} {value:.3f}" for name, value in list(losses.items())[:3])
                print(f"{label}  iteration {iteration + 1}/{iterations}  {shown}  left {left:.0f} s", file=sys.stderr)
        if asked:
            stop(Interrupted, "interrupted", iterations)
    return history


@contextmanager
def _postponed_signals():
    """Collect SIGINT and SIGTERM in a list, which the loop looks at where its state is whole.

    Raised at any moment, the exception could leave weights of one iteration beside the history of another.
    """
    asked, previous = [], {}

    def ask(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        os.write(2, b"stopping after this iteration; Ctrl-C again stops at once\n")  # print may be what was interrupted

    if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                previous[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _restore(state, pools, arrays):
    """Put the arrays of a checkpoint back."""
    # An NPZ file does not know bfloat16: it gives back plain bytes.
    reset(state, [a.view(v.dtype) if a.dtype.kind == "V" else a for v, a in zip(state, arrays, strict=False)])
    for pool, array in zip(pools, arrays[len(state) :], strict=True):
        pool[...] = array


def _write_history(folder, history):
    """Keep the losses of a training that failed, for whoever looks for the reason; returns where, in words."""
    if folder is None:
        return ""
    path = os.path.join(folder, "history.csv")
    try:
        os.makedirs(folder, exist_ok=True)
        pd.DataFrame(history).to_csv(path, index=False, float_format="%.6g", na_rep="nan")
    except OSError as error:
        return f"; {path}: cannot be written ({error.strerror})"
    return f"; the losses up to there are in {path}"


def reset(variables, values):
    """Put stored values back, so that one compiled step can serve many runs."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
