"""The U-Net in PyTorch, as a process of its own that times what it is asked to.

Reads commands from its standard input, a JSON object a line, and answers each with one: ``task`` ("train"
or "predict"), ``size``, ``layout`` ("default" or "channels_last"), ``batch``, ``width``, ``inner`` (calls,
after one that is not timed where there are several). A first command of its kind builds and warms up.
"""

import json
import sys
import time

import torch
from torch import nn

CHANNELS = (16, 32, 64, 128)


def block(before, count, dropout):
    parts = []
    for channels in (before, count):
        convolution = nn.Conv2d(channels, count, 3, padding=1, bias=False)
        parts += [convolution, nn.BatchNorm2d(count, eps=1e-3), nn.Dropout(dropout), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


class UNet(nn.Module):
    """The network of :func:`lusbook.unet.build_unet`."""

    def __init__(self, width=1.0, dropout=0.5):
        super().__init__()
        channels = [max(1, round(count * width)) for count in CHANNELS]
        self.down = nn.ModuleList(block(b, c, dropout) for b, c in zip([1, *channels], channels, strict=False))
        pairs = list(zip(reversed(channels[:-1]), reversed(channels), strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, count, 2, 2) for count, below in pairs)
        self.joined = nn.ModuleList(block(2 * count, count, dropout) for count, _ in pairs)
        self.last = nn.Conv2d(channels[0], 1, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        skips = []
        for index, down in enumerate(self.down):
            x = down(self.pool(x) if index else x)
            skips.append(x)
        for up, joined, skip in zip(self.up, self.joined, reversed(skips[:-1]), strict=True):
            x = joined(torch.cat([skip, up(x)], 1))
        return self.last(x)


def bce_dice(logits, masks):
    probabilities = torch.sigmoid(logits)
    overlap, total = (probabilities * masks).sum(), probabilities.sum() + masks.sum()
    dice = 1 - (2 * overlap + 1e-7) / (total + 1e-7)
    return nn.functional.binary_cross_entropy_with_logits(logits, masks) + dice


def make_call(task, size, layout, batch, width, dropout):
    torch.manual_seed(0)
    layouts = {"default": torch.contiguous_format, "channels_last": torch.channels_last}
    model = UNet(width, dropout).to(memory_format=layouts[layout])
    images = (torch.rand(batch, 1, size, size) * 1.8 - 0.9).contiguous(memory_format=layouts[layout])
    masks = (torch.rand(batch, 1, size, size) < 0.2).float().contiguous(memory_format=layouts[layout])
    parameters = sum(p.numel() for p in model.parameters())
    if task == "predict":
        model.eval()

        def predict():
            with torch.inference_mode():
                return float(torch.sigmoid(model(images))[0, 0, 0, 0])

        return predict, parameters
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def train():
        optimizer.zero_grad()
        loss = bce_dice(model(images), masks)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return train, parameters


def timed(call, inner):
    if inner > 1:
        call()
    start = time.perf_counter()
    for _ in range(inner):
        call()
    return (time.perf_counter() - start) / inner


def main():
    calls = {}
    print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        inner = command.pop("inner", 1)
        key = tuple(sorted(command.items()))
        if key not in calls:
            if command.get("task") == "forget":
                calls.clear()
                print(json.dumps({}), flush=True)
                continue
            calls[key] = make_call(**command)
            calls[key][0]()
        call, parameters = calls[key]
        print(json.dumps({"seconds": timed(call, inner), "parameters": parameters}), flush=True)


if __name__ == "__main__":
    main()
