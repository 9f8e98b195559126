"""Boot a Debian with systemd as PID 1 and cgroup v2 under QEMU, and run the tests of `inside/` in it.

    <cache>/vm/<digest>/      {root.ext4, vmlinuz, initrd}: the host, a small Debian 13 with its own kernel
    <cache>/disk/<digest>/    image.ext4: the base image as a disk (an overlay wants a lower layer that is no network file system)

Both are content-addressed as the base image is, and only read: what the virtual machine writes goes to a file without a name. Our code
comes as a tar on a disk of its own. What the tests say comes out of a virtio port, line by line; the last line is their verdict.
QEMU emulates the processor (TCG), as this must run where no KVM is; everything takes some ten times longer than on a real host.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ops import image
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import CACHE, REPO

RECIPE = 1
"""counts changes of how the virtual machine is made that its ingredients below don't show"""
PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "systemd", "systemd-sysv", "udev", "dbus", "kmod", "procps", "openssh-client",
    # what ops/setup installs on a user's machine
    "systemd-container", "nftables", "iproute2", "util-linux", "mount",
    "python3", "python3-pytest", "python3-pytest-timeout",
)  # fmt: skip
FILES = {
    "etc/initramfs-tools/conf.d/mobula": "MODULES=list\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "etc/hostname": "host\n",
    "etc/machine-id": hashlib.sha256(b"host").hexdigest()[:32] + "\n",
    "etc/systemd/system/mobula-test.service": (
        "[Unit]\nDescription=Tests of the lab's launcher\nSuccessAction=poweroff-force\nFailureAction=poweroff-force\n"
        "[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/usr/local/sbin/run-tests\n"
        "[Install]\nWantedBy=multi-user.target\n"
    ),
    "usr/local/sbin/run-tests": (
        "#!/bin/sh\nexec >/dev/virtio-ports/mobula 2>&1\nmkdir -p /opt/code\n"
        "tar -xf /dev/disk/by-id/virtio-code -C /opt/code && exec sh /opt/code/tests/cgroup2/inside/run\n"
    ),
}
CODE = (
    "src/mobula/__init__.py",
    "src/mobula/lab",
    "tests/__init__.py",
    "tests/lifecycle/traces.py",
    "tests/cgroup2/inside",
)
MEMORY_MIB = 1536
CPUS = 2
VM_BOUND_S = 1500
SILENCE_BOUND_S = 420
"""longest time without a line: the boot, then one test at a time, each with its own bound below this one"""
BUILD_BOUND_S = 600
VERDICT = "== "
"""begins the last line of the tests"""


def host_digest() -> str:
    """Name of the virtual machine that this clone wants."""
    made_from = (RECIPE, image.SUITE, PACKAGES, FILES, image.TEXTS)
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]


def ensure_host(progress: Progress) -> Path:
    """The folder with the host's kernel, initial file system and disk."""
    folder = CACHE / "vm" / host_digest()

    def build(new: Path) -> None:
        root = new / "root"
        # Before the packages: the kernel's package makes its initial file system by them.
        tree = new / "files"
        for name, text in FILES.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if "/sbin/" in name else 0o644)
        options = [f"--dpkgopt=path-exclude={path}" for path in image.TEXTS]
        options.append(f'--essential-hook=cp -r --no-preserve=ownership {tree}/. "$1/"')
        image.bootstrap(new, "the virtual machine", sorted(PACKAGES), options, progress)
        shutil.copytree(tree, root, dirs_exist_ok=True)
        _run(["systemctl", f"--root={root}", "enable", "--quiet", "mobula-test.service"])
        for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            (found,) = (root / "boot").glob(pattern)
            found.rename(new / name)
        make_disk(root, new / "root.ext4", free_mib=2048)
        shutil.rmtree(root)
        shutil.rmtree(tree)

    image.build_once(folder, "the virtual machine", build, progress)
    return folder


def ensure_image(progress: Progress) -> Path:
    """The base image as a disk."""
    root = image.ensure(CACHE, progress)
    folder = CACHE / "disk" / image.digest()
    image.build_once(folder, "the base image's disk", lambda new: make_disk(root, new / "image.ext4"), progress)
    return folder / "image.ext4"


def make_disk(root: Path, disk: Path, free_mib: int = 64) -> None:
    """Write a tree into a new ext4 image with so much room left; the file is sparse."""
    used = int(_run(["du", "-s", "--block-size=1M", str(root)]).split()[0])
    inodes = int(_run(["du", "-s", "--inodes", str(root)]).split()[0])
    size_mib = used + used // 8 + free_mib
    _run(
        ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-N", str(inodes + 20000), "-d", str(root), str(disk), f"{size_mib}M"]
    )


def pack_code(tar: Path) -> None:
    """What the tests import and run, as a tar that is also a disk (whole sectors)."""
    with tarfile.open(tar, "w") as out:
        for name in CODE:
            out.add(REPO / name, name, filter=lambda entry: None if "__pycache__" in entry.name else entry)


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=BUILD_BOUND_S)
    if done.returncode:
        raise OperatorError(f"run {' '.join(argv[:3])!r}: exit {done.returncode}, {done.stderr.strip()[-300:]}")
    return done.stdout


def qemu(host: Path, disk: Path, code: Path, console: Path) -> list[str]:
    """The command that boots the virtual machine; its standard output is the tests'."""
    drives: list[str] = []
    # In this order: the first is /dev/vda.
    for name, file, mode in (
        ("root", host / "root.ext4", "snapshot=on"),
        ("image", disk, "readonly=on"),
        ("code", code, "readonly=on"),
    ):
        drives += [
            "-drive",
            f"file={file},id={name},format=raw,if=none,{mode}",
            "-device",
            f"virtio-blk-pci,drive={name},serial={name}",
        ]
    return [
        # It ends with us, however we end.
        "setpriv", "--pdeathsig=KILL", "nice", "--adjustment=10",
        "qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", "max,la57=off", "-machine", "q35", "-smp", str(CPUS),
        "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
        "-kernel", str(host / "vmlinuz"), "-initrd", str(host / "initrd"),
        "-append", "root=/dev/vda rw console=ttyS0 mitigations=off panic=-1 systemd.show_status=1",
        *drives, "-serial", f"file:{console}", "-device", "virtio-rng-pci",
        "-device", "virtio-serial-pci", "-chardev", "stdio,id=out,signal=off", "-device", "virtserialport,chardev=out,name=mobula",
    ]  # fmt: skip


def lines_of(
    process: subprocess.Popen[str], bound_s: float, silence_s: float, what: str = "the virtual machine"
) -> Iterator[str]:
    """The lines of a process until it ends.

    Raises:
        OperatorError: it runs too long, or says nothing for too long.
    """
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.put(line.rstrip())
        said.put(None)

    threading.Thread(target=read, daemon=True).start()
    end = time.monotonic() + bound_s
    while True:
        try:
            line = said.get(timeout=max(0.0, min(silence_s, end - time.monotonic())))
        except queue.Empty:
            raise OperatorError(
                f"run {what}: no line for {silence_s:.0f} s, or not over after {bound_s:.0f} s"
            ) from None
        if line is None:
            return
        yield line


def boot(host: Path, disk: Path, progress: Progress) -> bool:
    """Run the tests in a virtual machine; says whether they all passed."""
    verdict = ""
    with tempfile.TemporaryDirectory(prefix="mobula-vm-") as name:
        folder = Path(name)
        pack_code(folder / "code.tar")
        argv = qemu(host, disk, folder / "code.tar", folder / "console.log")
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True, env={**os.environ, "TMPDIR": name},
        ) as process:  # fmt: skip
            try:
                for line in lines_of(process, VM_BOUND_S, SILENCE_BOUND_S):
                    progress(line)
                    verdict = line if line.startswith(VERDICT) else verdict
            finally:
                process.kill()
                if not verdict.startswith(f"{VERDICT}exit 0"):
                    _show_console(folder / "console.log")
    return verdict.startswith(f"{VERDICT}exit 0")


def _show_console(console: Path) -> None:
    with contextlib.suppress(OSError):
        for line in console.read_text(errors="replace").splitlines()[-40:]:
            sys.stderr.write(f"  console: {line}\n")


def main() -> int:
    """Build what is missing, boot, say the verdict. 0 passed, 1 failed."""
    # Termination unwinds as Ctrl-C does: half-built folders and the virtual machine go.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = Progress()
    try:
        with progress.step("the host's disk"):
            host = ensure_host(progress)
        with progress.step("the base image's disk"):
            disk = ensure_image(progress)
        with progress.step(f"the virtual machine, {CPUS} emulated processors"):
            passed = boot(host, disk, progress)
    except OperatorError as error:
        progress(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        progress("interrupted; the virtual machine is gone")
        return 130
    progress(f"the launcher for cgroup v2 and systemd: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
