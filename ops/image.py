"""The base image: Debian 13 with the packages of every role, built by mmdebstrap into a cache outside the repo.

The image's name is the digest of everything it is made from (suite, packages, what is left out and set), so that a changed list is
another image and an unchanged one is never built again. It is built beside (``<digest>.new``) and renamed when complete:
a Ctrl-C or a crash leaves nothing that looks like an image. Machines use it as a read-only overlay lower layer.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.errors import OperatorError
from ops.mirror import sources_list

SUITE = "trixie"
RECIPE = 2
"""counts changes of how the image is made that its ingredients below don't show"""
PACKAGES = Path(__file__).with_name("image.packages")
ROOM_BYTES = 3 << 30
"""what a build needs at its peak: unpacked root (750 MB), archives, and some air"""

TEXTS = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
# Documentation, translations, JIT (PostgreSQL runs with it off), JavaScript and Maven trees: half of the size.
EXCLUDED = (
    *TEXTS,
    "/usr/lib/postgresql/*/lib/bitcode/*", "/usr/lib/postgresql/*/lib/llvmjit*", "/usr/lib/x86_64-linux-gnu/libLLVM*",
    "/usr/lib/llvm-*/*", "/usr/share/javascript/*", "/usr/share/nodejs/*", "/usr/share/maven-repo/*",
)  # fmt: skip

# Services start from our roles, never from their packages.
DISABLED = ("haproxy", "postgresql", "zfs-fuse", "pdns", "systemd-timesyncd", "systemd-networkd", "systemd-resolved")

# What a machine in a container has no use for, and what would cost its boot most (measured: 0.3 CPU-s a machine without them).
MASKED = (
    "getty@tty1.service", "console-getty.service", "getty-static.service", "systemd-firstboot.service", "apt-daily.timer",
    "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "systemd-pstore.service", "remote-fs.target", "systemd-udevd.service", "systemd-udev-trigger.service",
    "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-networkd.service", "systemd-networkd.socket",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "dev-hugepages.mount", "dev-mqueue.mount",
    "sys-kernel-debug.mount", "systemd-logind.service", "systemd-sysctl.service", "systemd-random-seed.service",
    "systemd-ask-password-wall.path", "systemd-ask-password-console.path", "sshd-unix-local.socket", "sshd-vsock.socket",
    "systemd-hostnamed.socket", "systemd-creds.socket", "systemd-pcrextend.socket", "systemd-sysext.socket",
    "systemd-mountfsd.socket", "systemd-nsresourced.socket", "systemd-tmpfiles-clean.timer",
)  # fmt: skip

# nspawn hands v1 controllers in read-only; without this MemoryMax= and the like are silently ignored. A boot unit is too late.
LAB_INIT = """#!/bin/sh
for c in memory cpu cpuacct pids blkio freezer devices; do
  [ -d /sys/fs/cgroup/$c ] && mount -o remount,bind,rw /sys/fs/cgroup/$c
done
for g in /lab/cpu/*; do
  [ -d "$g" ] && mkdir -p "/sys/fs/cgroup/cpu/${g##*/}" && mount --bind "$g" "/sys/fs/cgroup/cpu/${g##*/}"
done
exec /lib/systemd/systemd "$@"
"""
JOURNALD = "[Journal]\nStorage=persistent\nSystemMaxUse=32M\nRateLimitBurst=0\nForwardToSyslog=no\n"
SSHD = "UseDNS no\nMaxSessions 100\nMaxStartups 100:30:200\nPrintMotd no\nPasswordAuthentication no\n"


def read_packages(text: str) -> list[str]:
    """Package names of all roles in a package list (lines ``role: package ...``, ``#`` comments), sorted."""
    lines = (line.split("#", 1)[0].partition(":")[2] for line in text.splitlines())
    return sorted({package for line in lines for package in line.split()})


def digest() -> str:
    """Name of the image that this clone wants: 16 hex digits over all that it is made from."""
    made_from = (
        RECIPE,
        SUITE,
        read_packages(PACKAGES.read_text()),
        EXCLUDED,
        DISABLED,
        MASKED,
        LAB_INIT,
        JOURNALD,
        SSHD,
    )
    return digest_of(made_from)


def digest_of(made_from: object) -> str:
    """Name of an image that is made from that; of a value whose repr says all of it."""
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]


def root_of(cache: Path) -> Path:
    """Where the wanted image lies or will lie."""
    return cache / "image" / digest() / "root"


def ensure(cache: Path, progress: Callable[[str], None]) -> Path:
    """Return the root directory of the wanted image, building it first if it is not in the cache.

    Raises:
        OperatorError: no room, no mirror, or the build failed (its log's last lines are in the message).
    """

    def build(new: Path) -> None:
        check_room(cache, "the base image", ROOM_BYTES)
        _bootstrap(new, progress)
        _prepare(new / "root")

    build_once(root_of(cache).parent, "the base image", build, progress)
    return root_of(cache)


def build_once(folder: Path, what: str, build: Callable[[Path], None], progress: Callable[[str], None]) -> None:
    """Have `folder` in the cache: `build` fills ``<folder>.new``, which gets the name when it is complete, or is removed.

    Raises:
        OperatorError: what `build` says.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(folder.parent / "lock", what, progress):
        if folder.is_dir():
            return
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            build(new)
            os.sync()
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise


@contextmanager
def _only_one(lock: Path, what: str, progress: Callable[[str], None]) -> Iterator[None]:
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another command is building {what}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def check_room(cache: Path, what: str, needed_bytes: int) -> None:
    """Raises OperatorError: the cache's disk has less than that."""
    free = shutil.disk_usage(cache).free
    if free < needed_bytes:
        raise OperatorError(
            f"build {what} in {str(cache)!r}: {free >> 20} MiB are free, {needed_bytes >> 20} MiB are needed; "
            "free some room or name another folder in MOBULA_CACHE"
        )


def _bootstrap(new: Path, progress: Callable[[str], None]) -> None:
    options = [
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        # Without the man directories the JRE's update-alternatives fails.
        '--essential-hook=mkdir -p "$1/usr/share/man/man1" "$1/usr/share/man/man7" "$1/etc/postgresql-common"',
        '--essential-hook=echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"',
    ]
    bootstrap(new, "the base image", read_packages(PACKAGES.read_text()), options, progress)


def bootstrap(new: Path, what: str, packages: list[str], options: list[str], progress: Callable[[str], None]) -> None:
    """Make a Debian of the packages in ``<new>/root``; what was said lies in ``<new>/build.log``.

    Raises:
        OperatorError: no mirror, or mmdebstrap failed (its log's last lines are in the message).
    """
    argv = [
        # In namespaces of its own that end with us, however we end: no process and no mount of a half-made image stays behind.
        "setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
        "mmdebstrap", "--variant=minbase", "--mode=root", *options,
        "--dpkgopt=force-confold", "--dpkgopt=force-unsafe-io", '--aptopt=Apt::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"', f"--include={','.join(packages)}", SUITE, str(new / "root"), "-",
    ]  # fmt: skip
    scratch = new / "tmp"  # goes with the half-made image
    scratch.mkdir(mode=0o1777)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "TMPDIR": str(scratch)}
    log = new / "build.log"
    # A session of its own: Ctrl-C reaches us alone, and we end the build.
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
        errors="replace", start_new_session=True,
    ) as build, log.open("w") as out:  # fmt: skip
        assert build.stdin is not None and build.stdout is not None  # noqa: S101, PT018
        try:
            build.stdin.write(sources_list(SUITE))
            build.stdin.close()
            done = 0
            for line in build.stdout:
                out.write(line)
                if line.startswith("I: "):
                    progress(line[3:].strip().rstrip("."))
                elif re.match(r"Setting up ", line):
                    done += 1
                    if done % 40 == 0:
                        progress(f"{done} packages set up")
        except BaseException:
            build.kill()
            build.stdout.read()  # its end: the last process of the build is gone
            raise
    if build.returncode:
        raise OperatorError(f"build {what}: {why_failed(log.read_text())}")
    shutil.rmtree(scratch)


def why_failed(log: str) -> str:
    """What ended a build, from its log: one sentence."""
    if re.search("No space left on device|enough free space", log):
        return "the disk is full; free some room or name another folder in MOBULA_CACHE"
    errors = [line.removeprefix("E: ") for line in log.splitlines() if line.startswith("E: ")]
    return "; ".join(dict.fromkeys(errors[:3])) or " | ".join(log.splitlines()[-3:]) or "mmdebstrap said nothing"


def _prepare(root: Path) -> None:
    """Make a bootstrapped root fit for machines: no identity, nothing that starts by itself, sshd and journald set."""
    (root / "etc/machine-id").write_text("")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    for unit in DISABLED:
        if (root / f"usr/lib/systemd/system/{unit}.service").exists():
            subprocess.run(
                ["systemctl", f"--root={root}", "disable", "--quiet", unit], check=False, capture_output=True
            )
    for unit in MASKED:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    _write(root / "etc/systemd/journald.conf.d/mobula.conf", JOURNALD)
    _write(root / "etc/ssh/sshd_config.d/mobula.conf", SSHD)
    _write(root / "usr/sbin/lab-init", LAB_INIT, mode=0o755)
    # Says that nothing under /usr changed since: no machine rebuilds the linker's and the journal's caches at its first boot.
    for updated in ("etc/.updated", "var/.updated"):
        (root / updated).touch()
    pam = root / "etc/pam.d/common-session"
    pam.write_text(re.sub(r"^session.*pam_systemd\.so.*\n", "", pam.read_text(), flags=re.MULTILINE))


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
