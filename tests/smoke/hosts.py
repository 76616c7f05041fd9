"""Hosts of this machine that are reached by ssh alone: network namespaces with a home, `/tmp`, `/dev/shm` and processes
of their own, and one folder that all of them share. Needs root, `ip`, `unshare`, `sshd` and `rsync`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

USER, SHARED = "palimpsest", "/mnt/palimpsest"
TOOLS = ("ip", "unshare", "sshd", "ssh", "ssh-keygen", "rsync", "uv")
DESK = "10.77.0.254"  # where a person sits
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# A host sees the machine's files, but for what a machine has of its own. Its user is root by another name and home.
BOOT = """
set -e
hostname {name}
mount --bind {folder}/shared {shared}
mount --bind {folder}/{name}/home /home
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run/sshd
exec {sshd} -D -e -f /dev/null -h {folder_in_home}/host_key -o ListenAddress={address} -o PidFile=none \\
  -o PermitRootLogin=prohibit-password -o AuthorizedKeysFile={folder_in_home}/authorized_keys
"""


def missing() -> str:
    """Why there can be no hosts here; empty where there can."""
    if os.geteuid() != 0:
        return "needs root"
    tools = [tool for tool in TOOLS if shutil.which(tool, path=SYSTEM_PATH) is None]
    return f"needs {', '.join(tools)}" if tools else ""


class Hosts:
    """A desk and hosts with the given addresses, on a switch of their own that leads nowhere else.

    Attributes:
        folder: what a person at the desk has as home; `key` lies in it.
        shared: the folder that the hosts see as `SHARED`.
    """

    def __init__(self, folder: Path, addresses: Sequence[str]) -> None:
        self.folder, self.shared, self.key = folder / "desk", folder / "shared", folder / "desk" / "id_ed25519"
        self._all, self._prefix, self._switch = folder, f"p{os.getpid()}", f"p{os.getpid()}-switch"
        self._running: list[subprocess.Popen[bytes]] = []
        for made in (self.folder, self.shared, Path(SHARED), Path("/run/sshd")):
            made.mkdir(parents=True, exist_ok=True)
        (folder / "passwd").write_text(f"{USER}:x:0:0::/home/{USER}:/bin/bash\n{Path('/etc/passwd').read_text()}")
        _key(self.key)
        try:
            self._build(addresses)
        except BaseException:
            self.end()
            raise

    def start(self, *command: str, **environment: str) -> tuple[subprocess.Popen[bytes], Path]:
        """`command` at the desk, under way, and what it prints; it finds the machine's programs, and its own home."""
        environment = os.environ | {"PATH": SYSTEM_PATH, "HOME": str(self.folder)} | environment
        printed = self._all / f"{len(self._running)}.log"
        return self._start(printed, self._desk, *command, env=environment, stdin=subprocess.DEVNULL), printed

    def end(self) -> None:
        """Nothing of it is left."""
        for process in self._running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split():
            if name.startswith(f"{self._prefix}-"):
                _ip("netns", "delete", name)

    def _build(self, addresses: Sequence[str]) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        self._desk = self._plug_in("desk", DESK)
        for number, address in enumerate(addresses):
            self._boot(f"host{number}", address)
        for address in addresses:
            self._answers(address)

    def _plug_in(self, name: str, address: str) -> str:
        namespace = f"{self._prefix}-{name}"
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "add", "wire", "type", "veth", "peer", "name", name, "netns", self._switch)
        _ip("-n", self._switch, "link", "set", name, "master", "switch", "up")
        _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "wire")
        for device in ("wire", "lo"):
            _ip("-n", namespace, "link", "set", device, "up")
        _ip("-n", namespace, "route", "add", "default", "dev", "wire")  # Ray asks it for the host's own address
        return namespace

    def _boot(self, name: str, address: str) -> None:
        namespace, home = self._plug_in(name, address), self._all / name / "home" / USER
        (home / ".local" / "bin").mkdir(parents=True)
        (home / ".bashrc").touch()
        (home / ".local" / "bin" / "uv").symlink_to(str(shutil.which("uv")))
        _key(home / "host_key")
        shutil.copy(self.key.with_suffix(".pub"), home / "authorized_keys")
        boot = BOOT.format(
            name=name, folder=self._all, shared=SHARED, address=address, folder_in_home=f"/home/{USER}",
            sshd=shutil.which("sshd", path=SYSTEM_PATH),
        )  # fmt: skip
        inside = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", boot]
        self._start(self._all / f"{name}.log", namespace, *inside)

    def _start(self, printed: Path, namespace: str, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        with printed.open("wb") as log:
            started = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *command],
                stdout=log, stderr=log, start_new_session=True, **options,
            )  # fmt: skip
        self._running.append(started)
        return started

    def _answers(self, address: str) -> None:
        until = time.monotonic() + 30
        while True:
            with suppress(subprocess.CalledProcessError):
                self.ssh(address, "true")
                return
            assert time.monotonic() < until, f"{address} does not answer: {self._logs()}"
            time.sleep(0.2)

    def ssh(self, address: str, command: str) -> str:
        """What `command` prints on a host.

        Raises:
            subprocess.CalledProcessError: it failed, or the host did not answer.
        """
        options = ["-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        call = ["ip", "netns", "exec", self._desk, "ssh", "-q", *options, f"{USER}@{address}", command]
        return subprocess.run(call, check=True, capture_output=True, text=True, timeout=60).stdout

    def _logs(self) -> str:
        return "\n".join(path.read_text() for path in self._all.glob("*.log"))


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, env=os.environ | {"PATH": SYSTEM_PATH})
