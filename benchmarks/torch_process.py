"""The PyTorch side of a comparison: another interpreter, which may have PyTorch where ours has none."""

import json
import subprocess
from pathlib import Path
from typing import Annotated

import common
import typer

TorchPython = Annotated[Path | None, typer.Option(help="Python that has PyTorch; without one its column stays empty.")]


class Torch:
    """``unet_torch.py`` under another Python, waiting for commands.

    Parameters
    ----------
    python : path or None
        None: there is no PyTorch to compare with, and the object is false.
    """

    def __init__(self, python):
        self.process = None
        if python is not None:
            command = [str(python), str(Path(__file__).with_name("unet_torch.py"))]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.about = json.loads(self.process.stdout.readline())

    def __bool__(self):
        return self.process is not None

    def ask(self, **command):
        """Answer to a command."""
        print(json.dumps(command), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the PyTorch process ended, status {self.process.wait()}")
        return json.loads(answer)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self:
            self.process.stdin.close()
            self.process.wait(60)


def timer(call):
    """Seconds of a call: a dict is a command for PyTorch, which takes the time itself."""
    if isinstance(call, tuple):
        torch, command = call
        return torch.ask(**command)["seconds"]
    return common.seconds(call)
