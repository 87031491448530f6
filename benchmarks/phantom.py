"""Time and memory of simulating both cohorts of the paper: 1,303 frames of 256 x 256 with masks."""

import resource

import common
import typer

from lusbook import phantom
from lusbook.settings import make_settings


def main(quick: common.Quick = False, out: common.Out = None, rounds: common.Rounds = 3):
    """Measure lusbook.phantom.simulate, in this process and in two."""
    settings = make_settings("paper")
    plan = ((2,),) if quick else None
    count, rounds = (4, 1) if quick else (sum(sum(map(sum, folds)) for folds in phantom.PLAN.values()), rounds)

    def simulate(processes):
        for name in phantom.PLAN:
            knobs = {key: getattr(settings, f"{name}_{key}") for key in ("diversity", "consistency")}
            phantom.simulate(name, plan=plan, processes=processes, **knobs)
        return []

    calls = {processes: lambda processes=processes: simulate(processes) for processes in (2, 1)}
    times = common.interleaved(calls, rounds)
    rows = [
        common.quantity(f"{count} frames, two processes", times[2], target=20.0),
        common.quantity(f"{count} frames, one process", times[1]),
    ]
    for name, who in (("this process", resource.RUSAGE_SELF), ("a worker", resource.RUSAGE_CHILDREN)):
        gibibytes = resource.getrusage(who).ru_maxrss / 2**20  # in KiB on Linux
        rows.append(common.quantity(f"peak memory of {name}", gibibytes, "GiB", target=1.0))
    common.report("phantom", rows, out, quick)


if __name__ == "__main__":
    typer.run(main)
