"""A Milvus server of this machine's own for tests: the binary that PyPI's package `milvus` carries, on loopback."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from index.milvus.store import MilvusSettings

__all__ = ["TOKEN", "MilvusServer", "names", "server_place"]

TOKEN = "root:Milvus"  # what a new server starts with
names = map("c{}".format, itertools.count())  # of collections that nothing is in yet


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


class MilvusServer:
    """Asks for TLS and a password, so that whatever runs against it shows that both are passed on.

    The package's own class could not restart it: it finds the port taken for another minute.
    """

    def __init__(self, folder: Path) -> None:
        milvus: Any = pytest.importorskip("milvus", reason="PyPI's package milvus is not installed")
        if shutil.which("openssl") is None:
            pytest.skip("openssl, which makes the server's certificate, is not installed")
        self.certificate, key = folder / "server.pem", folder / "server.key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=milvus.test"),
                *("-addext", "subjectAltName=DNS:milvus.test", "-keyout", str(key), "-out", str(self.certificate)),
            ],
            check=True,
            capture_output=True,
        )
        self.folder = folder / "data"
        config = milvus.MilvusServerConfig(data_dir=str(self.folder))
        for name, value in {
            "server_pem_path": str(self.certificate),
            "server_key_path": str(key),
            "tls_mode": 1,
            "authorization_enabled": True,
        }.items():
            config.set(name, value)
        ports = [name for name in config.configurable_items if name.endswith("_port")]
        *own, self._health = free_ports(len(ports) + 1)
        for name, port in zip(ports, own, strict=True):
            config.set(name, port)
        config.resolve_storage()
        config.write_config()
        milvus._initialize_data_files(str(self.folder))  # unpacks the binary
        self.uri = f"https://127.0.0.1:{config.get('proxy_port')}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers; skip the test where it cannot run here, as where etcd's port 2380 is taken."""
        environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._health),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
            "LD_LIBRARY_PATH": f"{self.folder / 'bin'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        }
        log = self.folder / "logs" / "output.log"
        with log.open("ab") as output:
            command = [str(self.folder / "bin" / "milvus"), "run", "standalone"]
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + 120
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                pytest.skip(f"the Milvus server does not start; see {log}")
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is said."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/healthz", timeout=5) as answer:
                return b"OK" in answer.read()
        except OSError:
            return False


def server_place(server: MilvusServer, **changes: Any) -> MilvusSettings:
    """A place on the server with nothing there yet."""
    return MilvusSettings(
        **{"uri": server.uri, "token": TOKEN, "server_pem_path": str(server.certificate)}
        | {"server_name": "milvus.test", "collection": next(names)}
        | changes
    )
