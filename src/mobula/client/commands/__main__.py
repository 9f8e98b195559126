"""``python -m mobula.client.commands mls ...``: for whoever has no script of that name."""

from __future__ import annotations

import sys

from mobula.client.commands.command import main

main(sys.argv[1:] or ["mobula"])
