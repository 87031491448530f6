"""Which weights of an adaptation to report: SIFA fluctuates, and nothing in the target domain has a label.

Besides the last weights: an exponential moving average of them, the snapshot that a label-free criterion picks, and,
as a leak to compare with, the snapshot that the target's test labels pick, as the reference's author does it.
"""

import keras
import numpy as np
from keras import ops

from lusbook import backend

EVERY = 10  # iterations between updates of the average
CANDIDATES = ("last", "average", "label-free", "oracle")


def make_average(weights, decay):
    """Keep an exponential moving average of weights.

    The decay grows with the number of updates, so that the first weights are soon forgotten.

    Parameters
    ----------
    weights : list of keras.Variable
        Moving statistics are averaged like the rest.
    decay : float
        Of one iteration.

    Returns
    -------
    averages : list of keras.Variable
    follow : callable
        ``follow(iteration)``, called after each iteration, counted from 1.

    References
    ----------
    Polyak & Juditsky 1992; for adversarial training, Yazici et al. 2019.
    """
    averages = [keras.Variable(np.asarray(weight.value), trainable=False) for weight in weights]

    def step(decay):
        for average, weight in zip(averages, weights, strict=True):
            average.assign(decay * average + (1 - decay) * weight)
        return ops.zeros(())

    compiled = backend.compile_step(step, [*averages, *weights])

    def follow(iteration):
        updates, rest = divmod(iteration, EVERY)
        if rest == 0:
            compiled(np.float32(min(decay**EVERY, updates / (updates + 9))))

    return averages, follow


def snapshot_iterations(iterations, count):
    """Iterations at which snapshots are taken, evenly spread; the last one is the end of training.

    Examples
    --------
    >>> snapshot_iterations(450, 5)
    [90, 180, 270, 360, 450]
    """
    return sorted({-(-iterations * part // count) for part in range(1, count + 1)})


def information(probabilities):
    """Mutual information between pixels and predicted class: the label-free criterion, the higher the better.

    The entropy of the mean prediction less the mean entropy of the predictions. Entropy alone would prefer a network
    that never finds a B-line.

    Parameters
    ----------
    probabilities : ndarray, float
        Probability of B-line in pixels of unlabelled target images.

    Returns
    -------
    information : float
        In nats, from 0 to 0.69.

    References
    ----------
    Bridle, Heading & MacKay 1991; as a criterion for adaptation, Musgrave, Belongie & Lim 2022.

    Examples
    --------
    >>> round(information(np.array([0.0, 0.0, 1.0, 1.0])), 2), abs(round(information(np.full(4, 0.3)), 2))
    (0.69, 0.0)
    """
    p = np.asarray(probabilities, "float64")
    return float(_entropy(p.mean()) - _entropy(p).mean())


def _entropy(p):
    """Entropy of a Bernoulli variable, nats."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))


def choose(snapshots, target):
    """Pick snapshots: by the label-free criterion, and by the target's labels.

    Parameters
    ----------
    snapshots : pandas.DataFrame
        One row a snapshot: iteration, information, and mean Dice on each cohort's test fold, ``dice_<cohort>``.
    target : str

    Returns
    -------
    chosen : dict of str to int
        ``label-free`` and ``oracle`` to an iteration; of equal ones the earliest.
    """
    by_iteration = snapshots.set_index("iteration")
    return {
        "label-free": int(by_iteration["information"].idxmax()),
        "oracle": int(by_iteration[f"dice_{target}"].idxmax()),
    }
