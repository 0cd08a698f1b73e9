"""The server under load: response times of many clients, and its throughput against encoding alone.

    python benchmarks/server_load.py [--index FOLDER] [--clients 32] [--seconds 60] [--requests N]

Without --index, synthetic radiographs are drawn and indexed with the bundled model. Every client sends radiographs, one
after another, for that many seconds or until that many requests are done. Before and after, the same radiographs are
encoded without any server, from files (read ahead by threads) and from prepared pictures, in batches of the server's
size. 503 is counted apart: it is the intended answer of a full server. First of all one client alone sends 20
radiographs: its response times stand beside reading and encoding one radiograph after another, and the server's memory
after them beside that at the end.
"""

import argparse
import http.client
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, quantiles

import cv2

from benchmarks._timing import machine, show
from index.case import Case
from retrieval.datasets.collection import read_collection
from retrieval.encoding.batches import encoded_batches
from retrieval.encoding.encoder import Encoder
from retrieval.images.radiograph import decode_radiograph
from retrieval.indexing.build import build_index
from retrieval.synthetic.dataset import draw_study, write_collection
from web.settings import Limits

BATCH = Limits().batch
BOUNDARY = "mura-search-load"


def queries(count: int) -> list[bytes]:
    """PNGs of synthetic radiographs, none of which is indexed."""
    drawn = (draw_study(7, number, abnormal=number % 2 == 1)[0].pixels for number in range(count))
    return [cv2.imencode(".png", pixels)[1].tobytes() for pixels in drawn]


def bare(encoder: Encoder, pictures: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """Radiographs a second without a server: from files, read ahead by threads, and from prepared pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        cases = []
        for number, data in enumerate(pictures):
            file = Path(temporary) / f"{number}.png"
            file.write_bytes(data)
            cases.append(Case(file.name, file.name, file.name, 0, path=str(file)))

        def from_files() -> int:
            return sum(len(batch.cases) for batch in encoded_batches(cases, encoder, size=BATCH))

        ready = [encoder.prepare(decode_radiograph(data).pixels) for data in pictures]

        def prepared() -> int:
            for start in range(0, len(ready), BATCH):
                encoder.encode_prepared(ready[start : start + BATCH])
            return len(ready)

        rates = []
        for action in (from_files, prepared):
            done, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                done += action()
            rates.append(done / (time.perf_counter() - started))
    return rates[0], rates[1]


def one_alone(encoder: Encoder, data: bytes) -> float:
    """The seconds that reading and encoding a radiograph takes."""
    started = time.perf_counter()
    encoder.encode([decode_radiograph(data).pixels])
    return time.perf_counter() - started


class Clients:
    """Threads, each of which sends one request after another; the times of the answers, and the statuses."""

    def __init__(self, port: int, pictures: Sequence[bytes]) -> None:
        self.port = port
        self.pictures = pictures
        self.times: list[float] = []
        self.statuses: Counter[int | str] = Counter()
        self.until = 0.0
        self.most = sys.maxsize
        self.started = 0

    def run(self, count: int, seconds: float, most: int) -> float:
        """Let `count` clients send requests; gives the seconds that it took."""
        begun = time.perf_counter()
        self.until, self.most = begun + seconds, most
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun

    def _client(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        while time.perf_counter() < self.until and self.started < self.most:
            self.started += 1
            number += 1
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="q.png"\r\n\r\n'
            body = head.encode() + self.pictures[number % len(self.pictures)] + f"\r\n--{BOUNDARY}--\r\n".encode()
            started = time.perf_counter()
            try:
                connection.request("POST", "/api/search", body, headers)
                reply = connection.getresponse()
                reply.read()
            except OSError as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
                continue
            self.statuses[reply.status] += 1
            if reply.status == 200:
                self.times.append(time.perf_counter() - started)
            elif reply.status == 503:
                time.sleep(int(reply.getheader("Retry-After", "1")))


def resident(pid: int) -> float:
    """A process's memory in MiB; NaN if the system does not report it."""
    try:
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024
    except OSError:
        return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, default=sys.maxsize)
    options = parser.parse_args()
    machine("onnxruntime", "fastapi", "uvicorn")
    with tempfile.TemporaryDirectory() as temporary:
        index = options.index
        if index is None:
            index = Path(temporary) / "index"
            write_collection(Path(temporary) / "data", patients=60, seed=1)
            build_index(read_collection(Path(temporary) / "data", split="train"), index)
        command = [sys.executable, "-c", "from cli.main import main; main()", "serve", "--port", "0"]
        begun = time.perf_counter()
        server = subprocess.Popen([*command, "--index", str(index)], stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        line = server.stderr.readline()
        show("ready after", [time.perf_counter() - begun], "s")
        threading.Thread(target=server.stderr.read, daemon=True).start()  # its log
        try:
            measure(options, server.pid, int(re.findall(r":(\d+)/", line)[0]), Encoder.open(index / "model"))
        finally:
            server.terminate()
            server.wait(20)


def alone(pid: int, port: int, encoder: Encoder, pictures: Sequence[bytes]) -> float:
    """Compare one client with reading and encoding alone, in turns; gives the server's memory after it, in MiB."""
    client, bare_seconds = Clients(port, pictures), []
    for data in pictures:
        client.run(1, sys.maxsize, client.started + 1)
        bare_seconds.append(one_alone(encoder, data))
    show("one client", client.times, "s")
    show("reading and encoding alone", bare_seconds, "s")
    print(f"one client / reading and encoding alone, p50: {median(client.times) / median(bare_seconds):.2f}")
    return resident(pid)


def measure(options: argparse.Namespace, pid: int, port: int, encoder: Encoder) -> None:
    pictures = queries(64)
    first = alone(pid, port, encoder, pictures[:20])
    warm_up = Clients(port, pictures)
    warm_up.run(options.clients, sys.maxsize, 4 * options.clients)
    before, memory = bare(encoder, pictures, 10), [resident(pid)]
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(5):
            memory.append(resident(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    clients = Clients(port, pictures)
    seconds = clients.run(
        options.clients, options.seconds if options.requests == sys.maxsize else 1e9, options.requests
    )
    stopped.set()
    watching.join()
    after = bare(encoder, pictures, 10)
    rate = len(clients.times) / seconds
    cut = quantiles(clients.times, n=100)
    print(f"{options.clients} clients for {seconds:.1f} s: {dict(clients.statuses)}")
    print(f"p50 {1000 * cut[49]:.0f} ms, p95 {1000 * cut[94]:.0f} ms, p99 {1000 * cut[98]:.0f} ms")
    print(f"server {rate:.2f} radiographs/s")
    for name, at in (("bare encoding, from files", 0), ("bare encoding, of prepared pictures", 1)):
        show(name, (before[at], after[at]), "radiographs/s")
        print(f"server / {name}: {rate / mean((before[at], after[at])):.2f}")
    spread = f"{memory[0]:.0f} at first, {max(memory):.0f} at most, {memory[-1]:.0f} at last"
    print(f"the server's memory in MiB: {spread}; load average {os.getloadavg()[0]:.1f}")
    print(f"memory at last / after the first 20 answers of one client: {memory[-1] / first:.2f}")
    failed = {status: count for status, count in clients.statuses.items() if status not in (200, 503)}
    if failed:
        sys.exit(f"failed: {failed}")


if __name__ == "__main__":
    main()
