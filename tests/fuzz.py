"""Feed every reader of files from strangers with broken ones: `make fuzz`, or `python -m tests.fuzz --help`.

Atheris (libFuzzer) changes good examples, keeps what reaches new code of lusbook, and changes that further; half of the
changes know the structure of the file. An outcome is right if it is a result or one LusbookError that names the file.
Anything else is a finding: another exception, more than SECONDS of computing or MEMORY bytes, an error without a
place or as long as a book, a file opened or written outside the folder, a pickle, a program or a connection.

`tests/test_fuzz.py` makes some hundred changes a reader, without Atheris. Findings are kept in `_build/fuzz`, and so is
the corpus, from which the next call goes on; with `--more` its counts are added to those of the calls before.
"""

import errno
import gc
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stderr
from io import BytesIO, StringIO
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import typer

PROJECT = Path(__file__).resolve().parents[1]
KEPT = PROJECT / "_build" / "fuzz"
SECONDS = 10.0  # of computing, for an input of some kilobytes
MEMORY = 2 * 2**30  # bytes
FOLDERS = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # in memory: a disk takes longer than most readers
NO_MEMORY = os.strerror(errno.ENOMEM)  # as a decoder says it
KINDS = ("inputs", "result", "refused", "mishandled")
COUNTS = struct.Struct(f"{len(KINDS)}qd")  # of inputs by kind, and the seconds of the slowest
LONGEST = 1000  # characters of an error, beside twice those of the input
READABLE = tuple({str(PROJECT), sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys", "/dev/null"})
FORBIDDEN = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
WRITING = {
    "os.mkdir": 1,
    "os.rename": 2,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.link": 2,
    "os.truncate": 1,
}


class Finding(BaseException):
    """What no reader may do; no reader catches it."""


# ---------------------------------------------------------------------------------------------
# One input


class Guard:
    """Watches what Python opens, writes and starts while `inside` is a folder."""

    inside = None
    anywhere = False

    def __call__(self, event, arguments):
        if self.inside is None:
            return
        if event in FORBIDDEN:
            raise Finding(f"{event} {arguments[:1]!r}"[:200])
        if event in WRITING and not (isinstance(arguments[-1], int) and arguments[-1] > 0):  # in an opened folder
            for path in arguments[: WRITING[event]]:
                self.check(path, event)
        if event == "open" and not isinstance(arguments[0], int):
            flags = arguments[2] or 0
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self.check(arguments[0], "written")
            elif not self.anywhere and not os.path.realpath(arguments[0]).startswith(READABLE):
                self.check(arguments[0], "read")

    def check(self, path, event):
        if isinstance(path, str | bytes | os.PathLike) and b"\0" not in os.fsencode(path):
            if not Path(os.path.realpath(os.fsdecode(path))).is_relative_to(self.inside):
                raise Finding(f"outside its folder: {event} {os.fsdecode(path)!r}")


GUARD = Guard()


@contextmanager
def guarded(folder, anywhere=False, seconds=SECONDS):
    """Have the guard watch a folder, and end what computes for too long."""
    if not hasattr(GUARD, "hooked"):
        sys.addaudithook(GUARD)
        GUARD.hooked = True

    def stop(number, frame):
        raise Finding(f"more than {seconds:g} s of computing")

    before = signal.signal(signal.SIGVTALRM, stop)
    GUARD.inside, GUARD.anywhere = os.path.realpath(folder), anywhere
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        GUARD.inside = None
        signal.signal(signal.SIGVTALRM, before)


def outcome(target, data):
    """What comes of an input: "result", "refused", or what is wrong and where."""
    from lusbook.errors import LusbookError
    from tests.fuzz_targets import spread

    with tempfile.TemporaryDirectory(dir=FOLDERS) as folder:
        spread(target, Path(folder), data)
        try:
            with guarded(folder, target.anywhere), redirect_stderr(StringIO()):
                target.read(Path(folder))
        except LusbookError as error:
            if NO_MEMORY in str(error) and not bounded(target, folder):
                return f"more than {MEMORY} bytes: {str(error)[:200]}"
            places = (folder, *target.place, *(Path(name).name for name in target.names))
            if not any(place in str(error) for place in places):
                return f"an error without a place: {str(error)[:200]}"
            return (
                "refused" if len(str(error)) <= LONGEST + 2 * len(data) else f"an error of {len(str(error))} characters"
            )
        except (Exception, Finding) as error:
            steps = [f for f in traceback.extract_tb(error.__traceback__) if "/lusbook/" in f.filename]
            where = f"{Path(steps[-1].filename).name}, {steps[-1].name}" if steps else "outside lusbook"
            return f"{type(error).__name__} in {where}: {error}"[:400]
    return "result"


def bounded(target, folder):
    """Whether a decoder wants for memory with twice as much, too: FFmpeg says so of what it will not ask for at all."""
    from lusbook.errors import LusbookError

    limit, most = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return True
    resource.setrlimit(resource.RLIMIT_DATA, (2 * limit, most))
    try:
        with guarded(folder, target.anywhere), redirect_stderr(StringIO()):
            target.read(Path(folder))
    except (LusbookError, MemoryError) as error:
        return NO_MEMORY in str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
    return False


# ---------------------------------------------------------------------------------------------
# Changes

ODD = [
    *(
        None,
        True,
        0,
        -1,
        3,
        2**31,
        2**63,
        -(2**70),
        10**400,
        0.5,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "nan",
        "1e999",
    ),
    *("..", "../../escaped", "/etc/hostname", "C:\\a.png", "a\0b", "é\u2028", "\ud800", "x" * 3000, [], {}, [[]] * 3),
    {"..": 0},
]
WORDS = [
    *(
        b"",
        b",",
        b'"',
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"..",
        b"../../escaped",
        b"/etc/hostname",
        b"-1",
        b"0",
    ),
    *(
        b"1e999",
        b"nan",
        b"inf",
        b"9" * 5000,
        b"0x",
        b"0b",
        b"1_0",
        b"2001-99-99",
        b"12:99:99",
        b"[" * 300,
        b"{" * 300,
    ),
    *(b"&a [*a]", b"*a", b"<<: *a", b"!!python/object/apply:os.getcwd []", b"!!timestamp 1", b"!!int x", b"!!binary x"),
    *(b"? ", b"- ", b": ", b"{}", b"~", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<image>", b"\xd8\x00", b"a\r\nb"),
]


DEEP = [b"[" * 3000, b"{" * 3000]  # for JSON; YAML, which allows 20 levels, takes a tenth of a second to refuse them
MARKS = {"npz": b"PK", "png": b"\x89PNG\r\n\x1a\n", "json": b"{"}  # that tell the kind of a part


def change(data, kind, rng):
    """A change of an input that knows its structure."""
    from tests.fuzz_targets import SEPARATOR

    parts = data.split(SEPARATOR)
    k = rng.randrange(len(parts))
    if len(parts) > 1 and rng.random() < 0.05:
        del parts[k]
        return SEPARATOR.join(parts)
    part = parts[k]
    known = {"json": _change_json, "npz": _change_npz, "text": _change_text, "png": _change_png, "bytes": _change_bytes}
    kind = next((known for known, mark in MARKS.items() if part.startswith(mark)), kind)
    try:
        parts[k] = known[kind if rng.random() < 0.8 else "bytes" if kind != "json" else "text"](part, rng)
    except Exception:  # it is no longer of its kind
        parts[k] = _change_bytes(part, rng)
    return SEPARATOR.join(parts)


def _change_bytes(part, rng):
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, n = rng.randrange(len(part) + 1), rng.choice((1, 1, 2, 4, 30))
        filling = rng.choice((rng.randbytes(n), b"\xff" * n, b"\0" * n, part[at : at + n] * 2, b"", rng.choice(WORDS)))
        part = part[:at] + filling + part[at + rng.choice((0, n, n)) :]
    return part


def _change_text(part, rng):
    words = re.split(rb"([,\n:;<>\"'= \[\]{}/])", part)
    more = WORDS + DEEP if part.startswith((b"{", b"[")) else WORDS
    for _ in range(rng.choice((1, 1, 2, 5))):
        k = rng.randrange(len(words))
        words[k] = rng.choice((rng.choice(more), rng.choice(words), words[k] * 2, words[k] + rng.choice(more)))
    return b"".join(words)


def _change_json(part, rng):
    content = json.loads(part)
    places = [(None, content)]
    for _, node in places:
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        places += [((node, key), value) for key, value in inner]
    places = places[1:] or [(([content], 0), content)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        (holder, key), _ = rng.choice(places)
        if key in (holder if isinstance(holder, dict) else range(len(holder))):
            if rng.random() < 0.15:
                del holder[key]
            else:
                holder[key] = rng.choice(ODD) if rng.random() < 0.7 else rng.choice(places)[1]
    return json.dumps(content).encode()  # a circle is a ValueError


def _change_npz(part, rng):
    """Change members and write them with the right checksums, which random changes never hit."""
    with zipfile.ZipFile(BytesIO(part)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if info.file_size < 10**6}
    name = rng.choice(sorted(members))
    number = rng.choice((b"0", b"-1", b"3", b"99999999999", b"4294967296", b"1, 9", b"'"))
    kind = rng.choice((b"'|O'", b"'<U99'", b"'<f8'", b"[('a', '<f4')]", b"'|V0'", b"'<i8'"))
    head = members[name][:128]
    members[name] = rng.choice(
        (
            head.replace(b"shape': (", b"shape': (" + number + b",", 1) + members[name][128:],
            re.sub(rb"shape': \(\d*", b"shape': (" + number, head) + members[name][128:],
            re.sub(rb"'descr': '[^']*'", b"'descr': " + kind, head) + members[name][128:],
            _change_bytes(members[name], rng),
            members[rng.choice(sorted(members))],
        )
    )
    if rng.random() < 0.3:
        members[rng.choice(("../escaped.npy", "/tmp/escaped.npy", "key.npy", "a"))] = members.pop(name)
    file = BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _change_png(part, rng):
    """Change chunks and write them with the right checksums; pixels are unpacked for it."""
    chunks, at = [], 8
    while at < len(part):
        end = at + 8 + int.from_bytes(part[at : at + 4])
        chunks.append((part[at + 4 : at + 8], part[at + 8 : end]))
        at = end + 4
    k = rng.randrange(len(chunks))
    name, content = chunks[k]
    if name == b"IDAT" and rng.random() < 0.7:
        content = zlib.compress(_change_bytes(zlib.decompress(content), rng))
    else:
        at = rng.randrange(len(content) + 1)
        content = content[:at] + rng.choice((rng.randbytes(1), b"\x7f\xff", b"\0", b"\x10")) + content[at + 1 :]
    chunks[k : k + 1] = rng.choice(([(name, content)], [(name, content)], [(name, content)] * 2, []))
    rebuilt = (len(c).to_bytes(4) + n + c + zlib.crc32(n + c).to_bytes(4) for n, c in chunks)
    return part[:8] + b"".join(rebuilt)


# ---------------------------------------------------------------------------------------------
# Atheris, in a process of its own for each reader


def fuzz_one(name, runs, seconds, seed, folder):
    """Feed one reader in this process, which then ends; counts go to a file."""
    import atheris

    with atheris.instrument_imports(include=["lusbook"]):
        from lusbook import dicom, media
        from tests.fuzz_targets import TARGETS, seeds
    media.LARGEST = dicom.LARGEST = 2**20  # of 2^24, which users may have, the fan takes more than SECONDS to find
    target, corpus = TARGETS[name], folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    gc.freeze()  # a million objects of libraries
    resource.setrlimit(resource.RLIMIT_DATA, (2 * MEMORY, resource.RLIM_INFINITY))  # then NumPy raises
    counts = dict.fromkeys(KINDS, 0)
    slowest, file = 0.0, os.open(folder / "counts", os.O_RDWR | os.O_CREAT, 0o600)

    def feed(data):
        nonlocal slowest
        start = time.process_time()
        found = outcome(target, data)
        slowest = max(slowest, time.process_time() - start)
        kind = found if found in KINDS else "mishandled"
        counts["inputs"] += 1
        counts[kind] += 1
        os.pwrite(file, COUNTS.pack(*counts.values(), slowest), 0)
        if kind == "mishandled":
            keep(folder, data, found)
        if int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize() > MEMORY:
            os._exit(0)  # code that Atheris watches leaks; another process goes on, where an input may take as much

    def mutate(data, size, number):
        rng = random.Random(number)
        changed = change(data, target.kind, rng) if rng.random() < 0.5 else atheris.Mutate(data, size)
        return changed if len(changed) <= size else atheris.Mutate(data, size)

    options = [f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed}", f"-rss_limit_mb={2 * MEMORY // 2**20}"]
    options += ["-timeout=120", f"-artifact_prefix={folder}/died-", "-max_len=16384", "-len_control=0", "-verbosity=0"]
    atheris.Setup([name, *options, str(corpus)], feed, custom_mutator=mutate, enable_python_coverage=True)
    atheris.Fuzz()


def keep(folder, data, found):
    """Keep the first inputs of each finding, and a line a finding."""
    label = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'|/(tmp|dev/shm)/\S+", "#", found)
    with open(folder / "findings.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"found": found, "kind": label}) + "\n")
    path = folder / f"finding-{abs(hash(label)) % 10**8}"
    if not path.exists():
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(found + "\n", "utf-8", "backslashreplace")


def fuzz_apart(name, runs, seconds, seed, core, kept=KEPT):
    """Feed one reader in other processes until enough inputs are tried; one that died is a finding.

    What was reached stays in the corpus, from which the next call goes on.
    """
    folder = kept / re.sub("[^A-Za-z0-9]+", "-", name)
    for old in (*folder.glob("finding*"), *folder.glob("died-*")):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    total, slowest, begun, died, start = [0] * len(KINDS), 0.0, 0, 0, time.monotonic()
    while total[0] < runs and died < 20 and (left := int(seconds - (time.monotonic() - start))) > 0:
        (folder / "counts").unlink(missing_ok=True)
        begun += 1
        options = {"alone": folder, "core": core, "runs": runs - total[0], "seconds": left, "seed": 1000 * seed + begun}
        with open(folder / "log", "ab") as log:
            environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
            given = (f"--{key}={value}" for key, value in options.items())
            command = [sys.executable, "-m", "tests.fuzz", name, *given]
            done = subprocess.run(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)
        if not (folder / "counts").exists():
            raise SystemExit(f"fuzz {name}: did not start; see {folder / 'log'}")
        *counts, slow = COUNTS.unpack((folder / "counts").read_bytes())
        total, slowest = [a + b for a, b in zip(total, counts, strict=True)], max(slowest, slow)
        if done.returncode:
            died += 1
            keep(folder, b"", f"the process ended with status {done.returncode}; see {folder / 'log'} and died-*")
    counts = dict(zip(KINDS, total, strict=True))
    counts["mishandled"] += died
    return {"seed": seed, "seconds": round(time.monotonic() - start), "slowest": round(slowest, 3), **counts}


def fuzz_all(calls, runs, seconds, kept=KEPT):
    """Feed readers until each has tried enough inputs, one on each core at a time.

    Parameters
    ----------
    calls : dict of list
        By reader, what earlier calls of :func:`fuzz_apart` returned; this one's are added. A reader that has
        mishandled something begins anew, as it must have been mended.

    Yields
    ------
    name : str
        Of a reader that is done.
    """
    from lusbook.site.footer import ask_git  # here: Atheris sees to the imports of the process that feeds

    cores, commit = SimpleQueue(), ask_git(PROJECT, "describe", "--always", "--exclude=*", "--dirty= with changes")
    for core in os.sched_getaffinity(0):
        cores.put(core)

    def feed(name):
        earlier = [] if any(call["mishandled"] for call in calls[name]) else calls[name]
        if (left := runs - sum(call["inputs"] for call in earlier)) > 0:
            core = cores.get()
            found = fuzz_apart(name, left, seconds, len(earlier), core, kept)
            cores.put(core)
            calls[name] = [*earlier, found | {"commit": commit}]
        return name

    with ThreadPoolExecutor(cores.qsize()) as pool:
        yield from (future.result() for future in as_completed([pool.submit(feed, name) for name in calls]))


def main(
    readers: Annotated[list[str] | None, typer.Argument(help="Readers by name; all by default.")] = None,
    runs: Annotated[int, typer.Option(help="Inputs for each reader.")] = 100_000,
    seconds: Annotated[int, typer.Option(help="At most so long for each reader.")] = 36_000,
    more: Annotated[bool, typer.Option("--more", help="Go on from the counts in the JSON file.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file; data/benchmarks/fuzz.json by default.")] = None,
    alone: Annotated[Path | None, typer.Option(hidden=True)] = None,
    core: Annotated[int, typer.Option(hidden=True)] = 0,
    seed: Annotated[int, typer.Option(hidden=True)] = 0,
):
    """Feed every reader of files from strangers with broken ones, and count what is mishandled."""
    if alone:
        os.sched_setaffinity(0, {core})  # decoders start a thread a core, which costs more than it saves
        fuzz_one(readers[0], runs, seconds, seed, alone)
    sys.path.append(str(PROJECT / "benchmarks"))
    import common

    from tests.fuzz_targets import TARGETS

    path = out or PROJECT / "data" / "benchmarks" / "fuzz.json"
    before = json.loads(path.read_text())["calls"] if more and path.exists() else {}
    chosen = {name: before.get(name, []) for name in readers or TARGETS}
    for name in fuzz_all(chosen, runs, seconds):
        common.progress(f"{name}: {chosen[name][-1] if chosen[name] else 'enough'}")
        calls = {name: (before | chosen)[name] for name in TARGETS if (before | chosen).get(name)}
        sums = {f"{name}, {what}": sum(c[what] for c in tried) for name, tried in calls.items() for what in KINDS}
        rows = [common.quantity(what, count, "") for what, count in sums.items()]
        common.report("fuzz", rows, path, quiet=True, calls=calls)
    if any(count for what, count in sums.items() if what.endswith("mishandled")):
        raise SystemExit(f"mishandled inputs are in {KEPT}")


if __name__ == "__main__":
    typer.run(main)
