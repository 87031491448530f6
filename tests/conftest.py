"""What tests import: benchmarks hold the plain build of SIFA that lusbook is compared with."""

import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))  # last: names there hide nothing

# A shell without job control has what it starts in the background ignore Ctrl-C, which tests here send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
