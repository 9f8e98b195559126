"""The Debian mirror of the base image, taken from the machine's own apt configuration (or MOBULA_MIRROR)."""

from __future__ import annotations

import os
import subprocess

from ops.errors import OperatorError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def mirror_lines(index_targets: str, suite: str) -> list[str]:
    """sources.list lines for `suite`, from ``apt-get indextargets`` output (lines ``uri codename component origin``).

    The main archive, its updates and its security archive are told apart by their code names.
    """
    lines = set()
    for target in index_targets.splitlines():
        uri, codename, component, *origin = target.split()
        if component != "main" or origin[:1] != ["Debian"]:
            continue
        if codename.endswith("-security"):
            lines.add(f"deb [signed-by={KEYRING}] {uri} {suite}-security main")
        elif codename.endswith("-updates"):
            lines.add(f"deb [signed-by={KEYRING}] {uri} {suite}-updates main")
        elif "-" not in codename:
            lines.add(f"deb [signed-by={KEYRING}] {uri} {suite} main")
    return sorted(lines)


def sources_list(suite: str) -> str:
    """The sources.list for mmdebstrap.

    Raises:
        OperatorError: this machine's apt knows no Debian mirror and MOBULA_MIRROR names none.
    """
    named = os.environ.get("MOBULA_MIRROR")
    if named:
        return f"deb [signed-by={KEYRING}] {named} {suite} main\n"
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = mirror_lines(listing.stdout, suite)
    if not lines:
        raise OperatorError(
            "find a Debian mirror for the base image: apt on this machine knows none (run `apt-get update` first; "
            "on Ubuntu name one in MOBULA_MIRROR, as in http://<mirror>/debian)"
        )
    return "\n".join(lines) + "\n"
