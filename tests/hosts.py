"""Hosts of their own on this machine: network namespaces on one bridge, each with a link that can be cut.

with hosts(["s3", "train1"]) as (s3, train1):
    process = train1.start(["biovfm", ...], env={...})
    train1.cut()

Needs root and iproute2. Processes of a host end with it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
_NETWORK = "10.77.{}.{}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def are_permitted() -> bool:
    """Whether this process may make network namespaces with links."""
    name = f"bvt{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        for words in (("link", "delete", f"{name}a"), ("netns", "delete", name)):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                _ip(*words)
    return True


@dataclass(slots=True, kw_only=True)
class Host:
    """One host.

    Attributes:
        name: Of its network namespace.
        address: Its IPv4 address.
        outer: The end of its link that lies outside.
        running: Its processes.
    """

    name: str
    address: str
    outer: str
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str], log: Path, stdin: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a command on the host; its output goes to `log`."""
        with log.open("a") as stream:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                stdin=stdin,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_more_paths()]), **env},
                cwd=ROOT,
                text=True,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def run(self, command: Sequence[str], *, env: Mapping[str, str], log: Path, seconds: float = 240) -> int:
        """Run a command on the host to its end; its exit code."""
        return self.start(command, env=env, log=log).wait(seconds)

    def cut(self) -> None:
        """Cut the link: packets are lost without a word, as behind a switch that died."""
        _ip("link", "set", self.outer, "down")

    def join(self) -> None:
        """Mend what `cut` did."""
        _ip("link", "set", self.outer, "up")

    def limit(self, bits_per_second: int) -> None:
        """Bandwidth of the link in both directions."""
        rate = f"{bits_per_second}bit"
        shape = ["root", "tbf", "rate", rate, "burst", "32kb", "latency", "100ms"]
        subprocess.run(["tc", "qdisc", "replace", "dev", self.outer, *shape], check=True, capture_output=True)
        inside = ["ip", "netns", "exec", self.name, "tc", "qdisc", "replace", "dev", "eth0", *shape]
        subprocess.run(inside, check=True, capture_output=True)

    def sent_bytes(self) -> int:
        """Bytes that the host has sent."""
        return int(Path(f"/sys/class/net/{self.outer}/statistics/rx_bytes").read_text())

    def received_bytes(self) -> int:
        """Bytes that the host was sent."""
        return int(Path(f"/sys/class/net/{self.outer}/statistics/tx_bytes").read_text())

    def power_off(self) -> None:
        """End every process of the host at once."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        for word in found.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(word), signal.SIGKILL)
        for process in self.running:
            process.wait()
        self.running.clear()


def _more_paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _free_network() -> int:
    """The third number of a network that this machine has no address in: other tests may have hosts too."""
    taken = subprocess.run(["ip", "-4", "-o", "address"], check=True, capture_output=True, text=True).stdout
    free = [third for third in range(1, 251) if f" {_NETWORK.format(third, 254)}/" not in taken]
    return secrets.choice(free)


@contextlib.contextmanager
def hosts(names: Sequence[str]) -> Iterator[list[Host]]:
    """Hosts that reach each other and nothing else."""
    tag = secrets.token_hex(2)
    bridge, third = f"bv{tag}", _free_network()
    made: list[Host] = []
    with contextlib.ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "delete", bridge)
        _ip("address", "add", f"{_NETWORK.format(third, 254)}/24", "dev", bridge)  # for the test itself
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(names, 1):
            host = Host(name=f"bv{tag}-{name}", address=_NETWORK.format(third, number), outer=f"bv{tag}v{number}")
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "delete", host.name)
            _ip("link", "add", host.outer, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("link", "set", host.outer, "master", bridge, "up")
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.name, "link", "set", "eth0", "up")
            _ip("-n", host.name, "link", "set", "lo", "up")
            stack.callback(host.power_off)
            made.append(host)
        yield made


@contextlib.contextmanager
def s3_on(host: Host, folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server on a host; the environment that its clients need, with a bucket `data`."""
    import json

    folder.mkdir(parents=True)
    out, log = folder / "env.json", folder / "log"
    process = host.start(
        [sys.executable, "-m", "tests.hosts", str(folder / "data"), host.address, str(out)],
        env={}, log=log, stdin=subprocess.PIPE,
    )  # fmt: skip
    from tests.faults import wait_for

    wait_for(lambda: out.is_file() or process.poll() is not None, seconds=120)
    assert out.is_file(), log.read_text()
    try:
        yield json.loads(out.read_text())
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def _serve(folder: str, address: str, out: str) -> None:
    """On the host: serve until standard input ends."""
    import json

    from infra.s3_server import Server

    with Server(Path(folder), host=address) as server:
        server.launch()
        server.make_bucket("data")
        partial = Path(f"{out}.tmp")
        partial.write_text(json.dumps(server.env))
        partial.rename(out)
        sys.stdin.read()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
