"""What the chapter on real clips compares: networks that learn from the phantom, with and without adaptation."""

import zlib

import pandas as pd

from lusbook import real, trials, video
from lusbook.cohort import network_images
from lusbook.experiments import EXPERIMENTS, FOLDS


def run_arms(settings, cohort, table, **keep):
    """Train a U-Net on the phantom and a SIFA from phantom to real frames, and score every real clip.

    SIFA also sees the real frames, without flags.

    Parameters
    ----------
    settings : Settings
    cohort : Cohort
        Labelled source, see :func:`lusbook.cohort.load_source`.
    table : pandas.DataFrame
        Clips, as :func:`lusbook.sources.read_covid_blues` lists them.
    **keep
        As :func:`lusbook.trials.run_trial`; each network has a subfolder of ``folder``.

    Returns
    -------
    outcome : dict
        As :func:`lusbook.trials.run_trial`; the tables are ``history`` and ``clips``.
    """
    clips = video.load_clips(table, settings.image_size)
    scores = clips.table[["clip", "patient", "b_lines"]].copy()
    scores["streaks (untrained)"] = real.pool_frames(real.streak_score(clips.frames, clips.fans), clips.clip)
    scores["brightness (untrained)"] = real.pool_frames(real.mean_brightness(clips.frames, clips.fans), clips.clip)
    seed = (settings.seed, len(FOLDS), zlib.crc32(b"real"))  # no fold is left out: the real clips are the test

    def arm(name):
        return keep | {"folder": keep["folder"] / name} if "folder" in keep else keep

    longer = {"unet_iterations": settings.real_iterations or settings.unet_iterations}
    network, history = trials.train_unet(
        EXPERIMENTS["unet-covid"],
        {"covid": cohort},
        settings.model_copy(update=longer),
        seed,
        None,
        "real  U-Net",
        **arm("unet"),
    )
    found = trials.probabilities(network.routes["direct"], clips.frames)
    scores["U-Net (phantom only)"] = real.clip_scores(found, clips.fans, clips.clip, settings.threshold)
    histories = [pd.DataFrame(history).assign(arm="U-Net")]
    network, history = trials.adapt(cohort, network_images(clips.frames), settings, seed, "real  SIFA", **arm("sifa"))
    found = trials.probabilities(network.routes["direct"], clips.frames)
    scores["SIFA (phantom to real)"] = real.clip_scores(found, clips.fans, clips.clip, settings.threshold)
    histories.append(pd.DataFrame(history).assign(arm="SIFA"))
    tables = {"history": pd.concat(histories), "clips": scores}
    return {"tables": tables, "overlays": {}, "weights": [], "machine": trials.machine()}
