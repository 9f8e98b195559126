"""What the task image promises: each command starts in a sandbox, and does what jobs need of it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobula.client.commands import COMMANDS
from mobula.jobs.door import Door
from mobula.jobs.runner import PATH
from mobula.metadata.jobs import Made
from mobula.sandbox.cgroups import Limits
from mobula.wire.http_client import HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer
from ops import task_image
from ops.task_image import TaskImage
from tests.probe import machine, sandboxes
from tests.probe.sandboxes import sh

pytestmark = pytest.mark.probe

ENOUGH = Limits(1024 << 20, 256)
SET = f"export PATH={PATH} MANTA_USER=dap MANTA_URL=http://localhost:80/ MANTA_NO_AUTH=true MANTA_OUTPUT_BASE=/dap/jobs/j/stor/a.0.\n"
SAID = {
    "bash --version": "GNU bash",
    "ffmpeg -version": "ffmpeg version",
    "ffprobe -version": "ffprobe version",
    "convert -version": "ImageMagick",
    "identify -version": "ImageMagick",
    "node -e 'console.log(6 * 7)'": "42",
    r"""printf '{"vstart": 1, "vend": [2]}\n{"vstart": 3}\n' | json -ga vstart vend[0]""": "1 2\n3",
    "python3 -c 'import json, ssl, sqlite3, zlib; print(json.dumps([1]))'": "[1]",
    "perl -MList::Util=sum -e 'print sum(1..4)'": "10",
    "git --version": "git version",
    "make --version": "GNU Make",
    "jq -n '1 + 1'": "2",
    "echo '2^100' | bc": "1267650600228229401496703205376",
    "curl --version": "curl",
    "openssl version": "OpenSSL",
    "printf 'b 2\\na 1\\n' | sort | awk '{print $2}' | paste -s -d+": "1+2",
    "gawk --version": "GNU Awk",
    "echo x | grep -c x; echo x | sed s/x/y/": "1\ny",
    "file /bin/bash": "ELF",
    "ps -p 1 -o pid=": "1",
    "sudo -n id -u": "0",
    "less --version": "less",
    "find /etc -name hosts | xargs ls": "/etc/hosts",
    "test -s /etc/ssl/certs/ca-certificates.crt && echo yes": "yes",
    "for z in gzip bzip2 xz zstd; do echo $z | $z | $z -d; done": "gzip\nbzip2\nxz\nzstd",
    "cd /tmp && echo x > f && zip -q f.zip f && unzip -p f.zip && tar -cJf f.tar.xz f && tar -tf f.tar.xz": "x\nf",
    "getent hosts localhost": "localhost",
    "printf 'a 1\\nb 2\\na 3\\n' | maggr key,sum": "a\t4\nb\t2",
    "ctrun -l child -o noorphan,pgrponly -i core echo -n a b": "a b",
    "/usr/local/lib/mobula/medusa-agent 2>&1 || true": "MANTA_JOB_ID is not set",
    "PYTHONPATH=/nonsense PYTHONHOME=/nonsense mls --version": "mobula-client/",
}
"""commands, and what they say"""


@pytest.fixture(scope="module")
def built() -> TaskImage:
    return machine.task_image_here()


@pytest.fixture
def at() -> Iterator[Path]:
    with machine.folder() as found:
        yield found


async def test_every_promised_command_starts(built: TaskImage, at: Path) -> None:
    async with sandboxes.running(at, ENOUGH, image=built) as box:
        wrong = []
        for script, wanted in SAID.items():
            said = await sh(box, SET + script)
            if said.exit_code or wanted not in said.out:
                wrong.append(f"{script}: {said.exit_code}, {said.out[:200]!r} {said.err[:500]!r}")
        assert not wrong, "\n".join(wrong)


async def test_every_tool_of_ours_is_first_on_the_path(built: TaskImage, at: Path) -> None:
    async with sandboxes.running(at, ENOUGH, image=built) as box:
        said = await sh(box, SET + f"for c in {' '.join(COMMANDS)}; do type -P $c && $c --help | head -n 1; done")
        lines = said.out.splitlines()
        assert lines[::2] == [f"/{task_image.TOOLS}/bin/{name}" for name in COMMANDS]
        assert all(f"usage: {name} " in line for name, line in zip(COMMANDS, lines[1::2], strict=True))
        assert (await sh(box, SET + "ls /usr/local/lib/mobula/bin | wc -l")).out.strip() == str(len(COMMANDS))


async def test_c_is_compiled_and_run(built: TaskImage, at: Path) -> None:
    program = (
        '#include <stdio.h>\n#include <png.h>\nint main(void) { return printf("hello %s", png_libpng_ver) < 0; }\n'
    )
    script = (
        f"cd /tmp && cat > hello.c <<'E'\n{program}E\n"
        "make -s LDLIBS=-lpng hello && ./hello && gcc -static -O2 hello.c -lpng -lz -lm"
    )
    async with sandboxes.running(at, ENOUGH, image=built) as box:
        said = await sh(box, SET + script)
        assert (said.exit_code, said.out[:8]) == (0, "hello 1."), said


async def test_a_film_becomes_frames(built: TaskImage, at: Path) -> None:
    script = (
        "cd /var/tmp && ffmpeg -v error -f lavfi -i testsrc=duration=2:size=64x48:rate=5 film.webm && "
        "ffmpeg -v error -i film.webm -vf fps=1 frame%d.png && ls frame* | wc -l && "
        "convert frame1.png -resize 50% small.jpg && identify small.jpg"
    )
    async with sandboxes.running(at, ENOUGH, image=built) as box:
        said = await sh(box, SET + script)
        assert (said.exit_code, said.err) == (0, ""), said
        assert said.out.startswith("2\nsmall.jpg JPEG 32x24")


async def test_git_keeps_a_tree(built: TaskImage, at: Path) -> None:
    script = (
        "cd /tmp && git init -q -b main r && cd r && echo x > f && git add f && "
        "git -c user.name=a -c user.email=a@b commit -q -m m && git clone -q . ../c && cat ../c/f"
    )
    async with sandboxes.running(at, ENOUGH, image=built) as box:
        said = await sh(box, SET + script)
        assert (said.exit_code, said.out) == (0, "x\n"), said


async def test_the_tools_speak_with_the_door_of_their_sandbox(built: TaskImage, at: Path) -> None:
    bodies: dict[str, bytes] = {}

    async def store(request: Request, response: Response) -> None:
        name = request.path.decode()
        if request.method == "PUT":
            bodies[name] = await request.body(1 << 20)
            await response.send(204)
        else:
            await response.send(200 if name in bodies else 404, [("Content-Type", "text/plain")], bodies.get(name, b""))

    behind, client = HttpServer(store), HttpClient()
    address = Address("127.0.0.1", await behind.listen("127.0.0.1", 0))
    door = Door(client, lambda: address, lambda: "token")
    front = HttpServer(door.handle)
    async with sandboxes.running(at, ENOUGH, image=built) as box:
        for listening in box.listen(80):
            await front.listen_on(listening)
        said = await sh(
            box, SET + "echo one | mpipe -r 1 ~~/stor/a; echo /dap/stor/b /dap/stor/c | xargs mcat; mget -q /dap/stor/a"
        )
        assert (said.exit_code, said.out) == (0, "/dap/stor/a\none\n"), said
        assert door.take() == [Made("/dap/stor/a", 1), Made("/dap/stor/b"), Made("/dap/stor/c")]
        said = await sh(box, SET + "seq 100 | msplit -n 3 -i -e '(line - 1) % 3'")
        assert (said.exit_code, said.err) == (0, ""), said
        parts = {made.reducer: bodies[made.name].split() for made in door.take()}
        assert {reducer: (len(part), part[0]) for reducer, part in parts.items()} == {
            0: (34, b"1"),
            1: (33, b"2"),
            2: (33, b"3"),
        }
        assert (await sh(box, SET + "curl -sf http://localhost/dap/stor/a")).out == "one\n"
        await front.stop(1)
    await client.close()
    await behind.stop(1)


def test_nothing_in_it_says_where_it_was_made(built: TaskImage) -> None:
    assert not list((built.root / "etc/apt").glob("sources.list*"))
    assert not (built.root / "etc/resolv.conf").exists()
    assert (built.root / "etc/machine-id").read_text() == ""
    assert [path.name for path in (built.root / "mnt").iterdir()] == []


def test_the_program_for_the_host_is_static_and_runnable(built: TaskImage) -> None:
    assert built.init.stat().st_mode & stat.S_IXUSR
    assert b"/ld-linux" not in built.init.read_bytes()
