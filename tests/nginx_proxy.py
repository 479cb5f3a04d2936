"""nginx with the configuration of deploy/proxy in front of some replicas, its addresses exchanged for theirs."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis_process import free_port
from replica_process import ROOT, Replica

CONFIGURED = ROOT / "deploy" / "proxy"


@dataclass
class Proxied:
    """What stands behind the proxy, and how it is reached."""

    replicas: Sequence[Replica]
    url: str
    trust: ssl.SSLContext


@contextmanager
def proxy(folder: Path, replicas: Sequence[Replica]) -> Iterator[Proxied]:
    """Run nginx over three replicas; `trust` holds its certificate, which is made here."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("needs nginx (Debian's package of that name)")
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    request = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    subprocess.run([*request, "-keyout", "tls.key", "-out", "tls.crt", *subject], cwd=folder, check=True, capture_output=True)
    shutil.copy(CONFIGURED / "proxied.conf", folder)
    port, conf = free_port(), (CONFIGURED / "nginx.conf").read_text()
    mine = {8443: port, **{8001 + i: replica.port for i, replica in enumerate(replicas)}}
    for theirs, ours in mine.items():
        assert conf.count(f"127.0.0.1:{theirs} ") == 1, theirs
        conf = conf.replace(f"127.0.0.1:{theirs} ", f"127.0.0.1:{ours} ")
    (folder / "nginx.conf").write_text(conf)
    command = [program, "-p", str(folder), "-c", "nginx.conf"]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with (folder / "nginx.log").open("ab") as log:
        process = subprocess.Popen([*command, "-g", "daemon off;"], stdout=log, stderr=log)
    try:
        yield Proxied(replicas, f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=str(folder / "tls.crt")))
    finally:
        process.terminate()
        process.wait(30)
