"""Questions for A records to one nameserver of a region, made from the standard library."""

from __future__ import annotations

import json
import subprocess
import sys

from ops.region import Region

RESOLVE = """
import json, socket, struct, sys
server, name = sys.argv[1:]
labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">HH", 1, 1), (server, 53))
data = s.recv(4096)
count = struct.unpack(">H", data[6:8])[0]
at = 12 + len(labels) + 4
found, ttl = [], 0
for _ in range(count):
    at += 2
    kind, _, ttl, size = struct.unpack(">HHIH", data[at:at + 10])
    found.append(socket.inet_ntoa(data[at + 10:at + 10 + size]))
    at += 10 + size
print(json.dumps([found, ttl]))
"""


def resolve(region: Region, server: str, name: str, *, namespace: str = "op") -> tuple[set[str], int]:
    """Addresses and TTL in seconds that the nameserver has for a name, asked in one of the region's namespaces.

    Raises:
        OSError: it does not answer.
    """
    argv = ["nsenter", f"--net=/run/netns/{region.name}-{namespace}", sys.executable, "-c", RESOLVE, server, name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ask {server} for {name}: {done.stderr.strip()[-200:]}")
    addresses, ttl_s = json.loads(done.stdout)
    return set(addresses), ttl_s
