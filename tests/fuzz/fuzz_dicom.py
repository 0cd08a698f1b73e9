"""Mutated DICOM files: how many are read or refused, and does any of them do harm?

    python tests/fuzz/fuzz_dicom.py [--mutants 20000] [--seed 0] [--workers 2] [--keep FOLDER]

Every test file of pydicom is a seed: once unchanged and, if it has pixels, once with the header of a computed
radiograph, so that mutants reach the decoders. A mutant is read whole, and by its header alone, in a process of its
own. Faults are: the process crashes; reading takes more than 5 s or more than 1 GiB; an error is not one sentence. With
a fault the exit code is 1. FOLDER gets the mutants with faults.
"""

import argparse
import io
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock, Thread

import pydicom
from pydicom.errors import InvalidDicomError

from benchmarks._timing import machine

SECONDS, BYTES = 5.0, 2**30
CEILING = 4 * BYTES  # of address space, so that a mutant cannot exhaust the machine
SEEDS = Path(pydicom.__file__).parent / "data" / "test_files"
CR = "1.2.840.10008.5.1.4.1.1.1"
NUMBERS = (b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x01\0")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of reading a mutant; `fault` is "" if it is as it should be."""

    name: str
    fault: str = ""


def seeds() -> list[tuple[str, bytes]]:
    """Name and bytes of every seed, in the order of their names."""
    found = []
    for path in sorted(SEEDS.rglob("*")):
        if path.is_file() and not path.name.endswith((".py", ".pyc")):
            name, data = path.relative_to(SEEDS).as_posix(), path.read_bytes()
            found.append((name, data))
            if (radiograph := as_radiograph(data)) is not None:
                found.append((f"{name} as a radiograph", radiograph))
    return found


def as_radiograph(data: bytes) -> bytes | None:
    """The same pixels with the header of a computed radiograph, None without pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(io.BytesIO(data))
            if "PixelData" not in ds or (ds.SOPClassUID, ds.get("Modality")) == (CR, "CR"):
                return None
            ds.SOPClassUID, ds.Modality = CR, "CR"
            file = io.BytesIO()
            ds.save_as(file, enforce_file_format=False)
            return file.getvalue()
    except (InvalidDicomError, AttributeError, TypeError):  # no DICOM, without a class, or pydicom cannot write it
        return None


def mutant(seed: bytes, other: bytes, rng: random.Random) -> bytes:
    """A seed with one to twenty changes: bits, bytes, numbers; pieces deleted, doubled, replaced or cut off."""
    data = bytearray(seed)
    part = rng.randrange(3)  # the header, which is short, the end, where the pixels are, or anywhere
    for _ in range(rng.choice((1, 1, 2, 4, 8, 20))):
        if not data:
            break
        least = len(data) // 2 if part == 1 else 0
        at = rng.randrange(least, max(least + 1, min(len(data), 1500) if part == 0 else len(data)))
        kind = rng.randrange(8)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind in (1, 2):
            data[at] = rng.randrange(256)
        elif kind == 3:
            number = rng.choice(NUMBERS)
            data[at : at + len(number)] = number
        elif kind == 4:
            del data[at : at + rng.choice((1, 2, 8, 64, 1000))]
        elif kind == 5:
            piece = data[at : at + rng.choice((1, 2, 8, 64, 1000))]
            data[at:at] = piece
        elif kind == 6:
            start = rng.randrange(max(1, len(other)))
            foreign = other[start : start + rng.choice((4, 16, 128, 1000))]
            data[at : at + len(foreign)] = foreign
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def work(pipe: Connection, seed: int) -> None:
    """Read the mutants whose numbers come through the pipe, and send back the result of each, with the peak of RSS."""
    from retrieval.errors import RadiographError
    from retrieval.images.dicom_header import DicomError
    from retrieval.images.dicom_reader import read_record
    from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS, read_frames

    resource.setrlimit(resource.RLIMIT_AS, (CEILING, CEILING))
    originals = seeds()
    path = Path(tempfile.mkdtemp(prefix="fuzz-dicom-")) / "mutant.dcm"
    pipe.send(("ready", "", 0))
    try:
        while (number := pipe.recv()) is not None:
            path.write_bytes(numbered(originals, seed, number)[1])
            name, fault = "read", ""
            try:
                read_frames(path)
            except RadiographError as error:
                name = "refused"
                fault = "" if len(str(error).splitlines()) == 1 else f"not one sentence: {error!r}"
            except Exception as error:  # broad: any other error is a fault
                name, fault = "raised", repr(error)
            try:
                with path.open("rb") as file:
                    read_record(file, MAX_BYTES, MAX_PIXELS)
            except DicomError:
                pass
            except Exception as error:  # broad, for the same reason
                name, fault = "raised", repr(error)
            pipe.send((name, fault, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def numbered(originals: Sequence[tuple[str, bytes]], seed: int, number: int) -> tuple[str, bytes]:
    """The mutant with this number, and the name of its seed: every seed in turn."""
    name, data = originals[number % len(originals)]
    rng = random.Random(f"{seed} {number}")
    return name, mutant(data, rng.choice(originals)[1], rng)


class Worker:
    """A process that reads mutants; it is replaced after a fault."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")  # a fork would inherit the memory of its parent
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.seed), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def read(self, number: int) -> Outcome:
        self.pipe.send(number)
        try:
            if not self.pipe.poll(SECONDS):
                self._replace()
                return Outcome("hung", f"more than {SECONDS:.0f} s")
            name, fault, peak = self.pipe.recv()
        except (EOFError, ConnectionError):
            code = self._replace()
            return Outcome("crashed", f"exit code {code}")
        if peak > BYTES:
            self._replace()
            return Outcome("took too much memory", f"{peak / 2**20:.0f} MiB")
        return Outcome(name, fault)

    def _replace(self) -> int | None:
        self.process.join(1)
        code = self.process.exitcode
        self.stop()
        self._start()
        return code

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run(mutants: int, seed: int, workers: int, keep: Path | None) -> int:
    originals, counts, faults = seeds(), Counter[str](), 0
    numbers, lock = iter(range(mutants)), Lock()
    print(f"{len(originals)} seeds, {mutants:,} mutants, random seed {seed}", flush=True)

    def go_through() -> None:
        nonlocal faults
        worker = Worker(seed)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                worker.stop()
                return
            outcome = worker.read(number)
            with lock:
                counts[outcome.name] += 1
                if outcome.fault:
                    faults += 1
                    name, data = numbered(originals, seed, number)
                    print(f"mutant {number} of {name} {outcome.name}: {outcome.fault}", flush=True)
                    if keep:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{seed}-{number}.dcm").write_bytes(data)

    started = time.perf_counter()
    threads = [Thread(target=go_through) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(", ".join(f"{name} {count:,}" for name, count in counts.most_common()))
    if counts.total() < mutants:
        print(f"only {counts.total()} of {mutants} were read: a worker could not be started")
        return 1
    print(f"{faults} faults in {time.perf_counter() - started:.0f} s")
    return min(faults, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    machine("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pyjpegls", "pillow", "numpy")
    return run(arguments.mutants, arguments.seed, arguments.workers, arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
