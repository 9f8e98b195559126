"""What a task must not be able to: scripts, for a sandbox on this machine (tests/probe) and for jobs on a region (tests/region)."""

from __future__ import annotations

PLANT = """
# What somebody might find, in every place that two tasks might share; it stays for a minute.
echo secret > /var/tmp/planted; echo secret > /etc/planted; echo secret > /dev/shm/planted
cp /bin/bash /usr/bin/planted; chmod 4755 /usr/bin/planted; useradd -o -u 0 planted 2>/dev/null; mkfifo /tmp/planted
exec python3 -c '
import ctypes, socket, time
ctypes.CDLL(None).shmget(0x4d6f, 4096, 0o1666)
abstract, port = socket.socket(socket.AF_UNIX), socket.socket()
abstract.bind("\\0planted"); abstract.listen(); port.bind(("127.0.0.1", 4567)); port.listen()
open("/var/tmp/ready", "w"); time.sleep(60)'
"""
LOOK = """
ls /var/tmp /tmp /etc /dev/shm /usr/bin | grep planted; grep planted /etc/passwd; ps ax | grep -v grep | grep python3
exec python3 -c '
import ctypes, socket
if ctypes.CDLL(None).shmget(0x4d6f, 1, 0) >= 0: print("shared memory")
for family, where in ((socket.AF_UNIX, "\\0planted"), (socket.AF_INET, ("127.0.0.1", 4567))):
    try: socket.socket(family).connect(where); print("connected", where)
    except OSError as error: pass'
"""

# Calls of the kernel by number (x86_64): `t` prints what it said.
CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(200)
part = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8)
def t(number, *args):
    result = libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *args)))
    print("ok" if result >= 0 else os.strerror(ctypes.get_errno()))
"""
OUTS = {
    "mount": "t(165, b'x', b'/mnt', b'tmpfs', 0, 0)",
    "umount": "t(166, b'/manta', 2)",
    "pivot_root": "t(155, b'.', b'.')",
    "unshare user": "t(272, 0x10000000)",
    "unshare mounts": "t(272, 0x20000)",
    "unshare network": "t(272, 0x40000000)",
    "clone into a user namespace": "t(56, 0x10000000 | 17, 0, 0, 0, 0)",
    "clone3": "t(435, buffer, 88)",
    "setns": "t(308, 0, 0)",
    "reboot": "t(169, 0xfee1dead, 672274793, 0x1234567, 0)",
    "kexec_load": "t(246, 0, 0, 0, 0)",
    "init_module": "t(175, 0, 0, b'')",
    "bpf": "t(321, 0, 0, 0)",
    "userfaultfd": "t(323, 0)",
    "perf_event_open": "t(298, 0, 0, 0, 0, 0)",
    "keyctl": "t(250, 0, 0)",
    "io_uring_setup": "t(425, 4, 0)",
    "syslog": "t(103, 3, 0, 0)",
    "open_by_handle_at": "t(304, 3, buffer, 0)",
    "fsopen": "t(430, b'tmpfs', 0)",
    "open_tree": "t(428, -100, b'/', 1)",
    "clock_settime": "t(227, 0, buffer)",
    "swapon": "t(167, b'/x', 0)",
    "acct": "t(163, b'/x')",
    "quotactl": "t(179, 0, 0, 0, 0)",
    "iopl": "t(172, 3)",
    "device node": "t(133, b'/tmp/node', 0o60666, 259)",
    "trace process 1": "t(101, 16, 1, 0, 0)",
    "read process 1": "t(310, 1, part, 1, part, 1, 0)",
    "raise priority": "t(141, 0, 0, -5)",
    "become a real-time process": "t(144, 0, 1, b'\\x01\\0\\0\\0')",
    "x32": "t(0x40000000 | 165, b'x', b'/mnt', b'tmpfs', 0, 0)",
    **{
        f"socket family {family}": f"t(41, {family}, {kind}, 0)"
        for family, kind in ((17, 3), (38, 5), (40, 1), (29, 3), (31, 3), (15, 3), (44, 3))
    },
}
REFUSALS = frozenset(
    {
        "Operation not permitted",
        "Function not implemented",
        "Address family not supported by protocol",
        "Permission denied",
    }
)
"""all that a call of `OUTS` may come to"""
SCRIPTS = (
    "echo b > /proc/sysrq-trigger", "echo x > /proc/sys/kernel/core_pattern", "echo 9 > /proc/sys/user/max_user_namespaces",
    "echo 1 > /proc/sys/net/ipv4/ip_forward", "cat /proc/kcore | head -c1 | grep .", "cat /proc/keys | grep .", "cat /dev/kmsg",
    "cat /proc/1/environ | grep -a .", "tr '\\0' ' ' < /proc/1/cmdline | grep -a '[/0-9]'", "ls /proc/1/root/", "ls /proc/1/fd/",
    "kill -0 1 && kill -9 1; sleep 0.1; false", "echo -900 > /proc/self/oom_score_adj", "ls /sys/fs/cgroup/*",
    "ip link add d0 type dummy",
    "mount -t tmpfs x /mnt", "chroot /proc/1/root true", "ls /tmp/mobula-probe-*", "strace -p 1",
)  # fmt: skip
"""none of these ends well"""
