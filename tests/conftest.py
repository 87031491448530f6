"""What tests import: benchmarks hold the plain build of SIFA that lusbook is compared with."""

import os
import signal
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from lusbook import devices, downloads, sources
from tests.helpers import HEADER, SIDE, make_frames, png, write_clip

# The same examples every time; HYPOTHESIS_PROFILE=search looks for others, and for more of them.
common = {
    "deadline": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
}
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, max_examples=50, **common)
hypothesis.settings.register_profile("search", max_examples=2000, **common)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))  # last: names there hide nothing

# A shell without job control has what it starts in the background ignore Ctrl-C, which tests here send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


devices.limit_threads()  # as commands and chapters do, before any test loads a backend


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest of three patients in each of two cohorts; rows and files can be changed first."""

    def write(rows=None, files=None, header="image,mask,patient,cohort", **changed):
        rng = np.random.default_rng(0)
        lines = []
        for number in range(1, 7):
            image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
            image.write_bytes(png(rng.integers(0, 256, (SIDE, SIDE))))
            mask.write_bytes(png(255 * (rng.random((SIDE, SIDE)) > 0.5)))
            lines.append(f"{image.name},{mask.name},p{number},{'covid' if number < 4 else 'cap'}")
        for number, line in (rows or {}).items():
            lines[number - 1] = line
        for name, content in (files or {}).items():
            (tmp_path / name).unlink(missing_ok=True)
            if content is not None:
                (tmp_path / name).write_bytes(content)
        path = tmp_path / "manifest.csv"
        path.write_text("\n".join([header, *lines]) + "\n", **({"encoding": "utf-8"} | changed))
        return path

    return write


@pytest.fixture
def copy(tmp_path):
    """A copy of COVID-BLUES with three clips, one of them without flags, and flags of one that is absent."""
    for name in ("patient_1_L1", "patient_1_R1_2", "patient_9_L3"):
        write_clip(tmp_path / "lus_videos" / f"{name}.mp4", make_frames(n=5))
    rows = "patient_1_R1_2,2.0,no,yes ,\npatient_1_L1,0.0,yes,no ,fine\npatient_10_L2,3.0,no,yes,\n"
    (tmp_path / "severity.csv").write_text(HEADER + rows)
    return tmp_path


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No copy of this machine's user is found."""
    for variable in sources.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(downloads, "cache_folder", lambda name: tmp_path / "cache" / name)
