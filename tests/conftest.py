"""What tests import: benchmarks hold the plain build of SIFA that lusbook is compared with."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))  # last: names there hide nothing
