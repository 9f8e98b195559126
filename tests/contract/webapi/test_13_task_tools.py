"""The tools of a task, and all others as a task has them: no key, clear text, and the door of a sandbox before the webapi."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobula.client.commands.aggregation import NAMES
from mobula.client.commands.command import run
from mobula.jobs.door import Door
from mobula.metadata.jobs import Made
from mobula.wire.http_client import HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer
from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Client

REPO = Path(__file__).parents[3]


class Task:
    """Runs commands as a task would; `out` and `err` are what the last one said, `asked` the headers of its requests."""

    def __init__(self, login: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.environment = {
            "MANTA_URL": "", "MANTA_USER": login, "MANTA_NO_AUTH": "true", "HOME": "/nonexistent",
            "MANTA_OUTPUT_BASE": f"/{login}/stor/job/books/one.0.",
        }  # fmt: skip
        self.door: Door
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.out = self.err = ""
        self._stdin = folder / "stdin"
        self._capsys = capsys
        self._login = login

    async def handle(self, request: Request, response: Response) -> None:
        headers = {name.lower(): value for name, value in request.headers}
        self.asked.append((request.method, request.target.decode(), headers))
        await self.door.handle(request, response)

    def __call__(self, name: str, *words: object, given: bytes = b"", code: int = 0) -> list[str]:
        """The lines that a command prints, with that standard input; its exit code must be `code`."""
        self.asked.clear()
        self._stdin.write_bytes(given)
        with self._stdin.open() as stdin, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", stdin)
            try:
                found = run(name, [str(word) for word in words], self.environment)
            except SystemExit as end:  # argparse
                found = int(end.code or 0)
        self.out, self.err = self._capsys.readouterr()
        assert found == code, self.err
        assert "Traceback" not in self.err
        return self.out.splitlines()

    def made(self) -> list[Made]:
        return self.door.take()


@pytest.fixture
def task(
    local: LocalRegion, ann: Client, login: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Task]:
    token = ann.request("POST", f"/{login}/tokens").json()["token"]
    made = Task(login, tmp_path, capsys)

    async def start() -> tuple[HttpServer, HttpClient]:
        client = HttpClient()
        made.door = Door(client, lambda: Address("127.0.0.1", local.port), lambda: token)
        server = HttpServer(made.handle)
        made.environment["MANTA_URL"] = f"http://localhost:{await server.listen('127.0.0.1', 0)}/"
        return server, client

    async def stop(server: HttpServer, client: HttpClient) -> None:
        await server.stop(1)
        await client.close()

    running = local.call(start())
    yield made
    local.call(stop(*running))


# mpipe


def test_mpipe_without_a_name_gets_one_of_its_own(task: Task, ann: Client, login: str) -> None:
    (name,) = task("mpipe", given=b"some\nlines\n")
    assert name.startswith(f"/{login}/stor/job/books/one.0.")
    assert len(name.rpartition(".")[2]) == 36
    assert task.made() == [Made(name)]
    assert ann.request("GET", name).body == b"some\nlines\n"
    assert "is kept in /" in task.err
    assert not Path(task.err.split("kept in ")[1].split(" ")[0]).exists()
    (again,) = task("mpipe", "-r", "3", given=b"")
    assert task.made() == [Made(again, 3)]
    headers = task.asked[-1][2]
    assert (headers["x-manta-stream"], headers["x-manta-reducer"]) == ("stdout", "3")
    assert "authorization" not in headers


def test_mpipe_onto_a_name_makes_directories_only_if_asked(task: Task, ann: Client, stor: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"bytes")
    task("mpipe", "-f", tmp_path / "f", f"{stor}/new/x", code=1)
    assert task.made() == []
    assert task(
        "mpipe", "-p", "-H", "content-type: video/webm", "-H", "m-a: b", "-f", tmp_path / "f", "~~/stor/new/x"
    ) == [f"{stor}/new/x"]
    assert task.made() == [Made(f"{stor}/new/x")]
    found = ann.request("GET", f"{stor}/new/x")
    assert (found.body, found.headers["content-type"], found.headers["m-a"]) == (b"bytes", "video/webm", "b")


def test_mpipe_to_a_reducer_that_can_not_be_fails(task: Task, stor: str) -> None:
    task("mpipe", "-r", "128", f"{stor}/x", given=b"x", code=1)
    assert "is not a number from 0 to 127" in task.err
    assert task.made() == []
    task("mpipe", "-r", "x", code=2)
    task("mpipe", "-f", "/nonexistent/file", f"{stor}/x", code=1)
    del task.environment["MANTA_OUTPUT_BASE"]
    task("mpipe", code=2)
    assert "MANTA_OUTPUT_BASE" in task.err


# mcat


def test_mcat_emits_names_in_their_order_and_prints_nothing(task: Task, stor: str) -> None:
    names = [f"{stor}/{n} ü" for n in range(5)]
    assert task("mcat", *names) == []
    assert task.made() == [Made(name) for name in names]
    assert {headers["x-manta-reference"] for _, _, headers in task.asked} == {"true"}
    assert task("mcat", "-r", "2", "~~/stor//a") == []
    assert task.made() == [Made(f"{stor}/a", 2)]
    task("mcat", "-r", "200", "~~/stor/a", code=1)
    task("mcat", "relative", f"{stor}/b", code=1)
    assert task.made() == [Made(f"{stor}/b")]
    task("mcat", code=2)


def test_mcat_finds_the_door_at_another_port(task: Task, stor: str) -> None:
    url, task.environment["MANTA_URL"] = task.environment["MANTA_URL"], "http://localhost:1/"
    task("mcat", "-p", url.rpartition(":")[2].strip("/"), f"{stor}/a")
    assert task.made() == [Made(f"{stor}/a")]
    task("mcat", "-p", "0", f"{stor}/a", code=2)


def test_mcat_outside_a_task_overwrites_nothing(task: Task, local: LocalRegion, ann: Client, stor: str) -> None:
    ann.put(f"{stor}/precious", b"bytes")
    for name in ("precious", "none"):
        refused = ann.request("PUT", f"{stor}/{name}", headers={"x-manta-reference": "true", "If-Match": '"-"'})
        assert refused.status == 412
    assert ann.request("GET", f"{stor}/precious").body == b"bytes"
    assert ann.request("GET", f"{stor}/none").status == 404


# mtee


def test_mtee_copies_and_puts_what_is_no_output(task: Task, ann: Client, stor: str) -> None:
    body = "".join(f"{n}\n" for n in range(100_000))
    task("mtee", "-c", "1", "-H", "m-a: b", f"{stor}/copy.txt", given=body.encode())
    assert task.out == body
    found = ann.request("GET", f"{stor}/copy.txt")
    assert (found.body.decode(), found.headers["durability-level"], found.headers["m-a"]) == (body, "1", "b")
    assert found.headers["content-type"] == "text/plain"
    assert task.made() == []
    task("mtee", code=2)


def test_mtee_copies_all_when_it_can_not_put(task: Task, stor: str) -> None:
    body = "line\n" * 200_000
    task("mtee", f"{stor}/none/copy", given=body.encode(), code=1)
    assert task.out == body
    assert "mtee: " in task.err


# msplit


def parts(task: Task, ann: Client) -> dict[int | None, bytes]:
    made = task.made()
    assert all(one.name.startswith(task.environment["MANTA_OUTPUT_BASE"]) for one in made)
    assert len({one.name for one in made}) == len(made)
    return {one.reducer: ann.request("GET", one.name).body for one in made}


def test_msplit_puts_one_for_each_reducer_and_empty_ones_too(task: Task, ann: Client) -> None:
    # The MD5s of "", "a", "abc" modulo 4 are 1, 1, 0.
    assert task("msplit", "-n", "4", given=b"abc\na\n\nabc") == []
    assert parts(task, ann) == {0: b"abc\nabc\n", 1: b"a\n\n", 2: b"", 3: b""}
    task("msplit", "-n", "2", "-i", "-d", ",", "-f", "2", given=b"x,1\ny,0\n")
    assert parts(task, ann) == {0: b"y,0\n", 1: b"x,1\n"}
    task("msplit", "-n", "1", "-z", given=b"x\n")
    assert gzip.decompress(parts(task, ann)[0]) == b"x\n"
    task("msplit", "-n", "4", "-j", "-f", "a.b", given=b'{"a": {"b": "abc"}}\n{"a": {"b": "a"}}\n{}\n')
    assert parts(task, ann) == {0: b'{"a": {"b": "abc"}}\n', 1: b'{"a": {"b": "a"}}\n{}\n', 2: b"", 3: b""}


def test_msplit_that_can_not_place_a_line_puts_nothing(task: Task) -> None:
    task("msplit", "-n", "2", "-i", given=b"0\n2\n", code=1)
    assert "line 2: '2' is not a reducer's number" in task.err
    task("msplit", "-n", "2", "-j", "-f", "a", given=b"no json\n", code=1)
    assert task.made() == []
    for words in ([], ["-n", "0"], ["-n", "129"], ["-n", "2", "-f", "x"], ["-n", "2", "-e", "1", "-f", "1"]):
        task("msplit", *words, code=2)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_msplit_by_an_expression(task: Task, ann: Client) -> None:
    task("msplit", "-n", "3", "-i", "-e", "line.length % 3", given="a\nüb\nc\n\nlonger".encode())
    assert parts(task, ann) == {0: b"\nlonger\n", 1: b"a\nc\n", 2: "üb\n".encode()}
    task("msplit", "-n", "4", "-e", "var n = line.split(' '); return n[1] // the name", given=b"1 abc\n2 a\n")
    assert parts(task, ann) == {0: b"1 abc\n", 1: b"2 a\n", 2: b"", 3: b""}
    task("msplit", "-n", "2", "-i", "-j", "-e", "this.n + 1", given=b'{"n": 0}\n{"n": -1}\n')
    assert parts(task, ann) == {0: b'{"n": -1}\n', 1: b'{"n": 0}\n'}
    task("msplit", "-n", "2", "-e", "line + '\\n'", given=b"x\n" * 50_000)
    assert sum(map(len, parts(task, ann).values())) == 100_000
    task("msplit", "-n", "2", "-e", "nothing.at.all", given=b"x\n", code=1)
    assert "line 1: the expression of -e gave no key" in task.err
    task("msplit", "-n", "1", "-i", "-e", "line", given=b"1\n" * 100_000, code=1)
    assert task.made() == []


def test_msplit_by_an_expression_needs_node(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    task("msplit", "-n", "2", "-e", "line", code=2)
    assert "there is no node on PATH" in task.err


# maggr


def test_maggr_says_which_lines_it_left_out_and_gives_the_rest(task: Task, tmp_path: Path) -> None:
    task.environment.clear()  # it needs no service
    assert task("maggr", "key,sum", given=b"a\t1\nb\tx\na\t2\n", code=1) == ["a\t3"]
    assert task.err == "maggr: line 2 is left out: no number: 'x'\n"
    (tmp_path / "f").write_bytes(b"3 4\n5 6")
    assert task("maggr", "-c2=mean,max", "-i", "/", "-f", tmp_path / "f") == ["5/6"]
    assert task("maggr", "mean", "-T", "%.1f", given=b"      1\n      2\n") == ["1.5"]
    assert task("maggr", "-d", ",", "-c1=key", "-t2=%03d", "-c2=sum", "-o", "=", given="ü,7\n".encode()) == ["ü=007"]
    assert task("maggr", "-l") == []
    assert task.err.split() == list(NAMES)
    for words in ([], ["mode"], ["-c1", "sum"], ["sum", "-d", ""]):
        task("maggr", *words, code=2)


# all others


def test_every_other_command_works_without_a_key(task: Task, ann: Client, stor: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    task("mmkdir", "-p", "~~/stor/a/b")
    task("mput", "-f", file, "/".join((stor, "a", "b", "frame 12.png")))
    task("mput", f"{stor}/a/piped", given=b"piped")
    assert task("mls", f"{stor}/a") == ["b/", "piped"]
    task("mls", f"{stor}/none", code=1)
    assert task("mget", "-q", f"{stor}/a/b/frame 12.png") == ["bytes"]
    assert task("mfind", "-t", "o", "-n", r"\.png$", stor) == [f"{stor}/a/b/frame 12.png"]
    assert json.loads(task("minfo", "-j", f"{stor}/a/piped")[0])["content-length"] == "5"
    assert task("mmd5", f"{stor}/a/piped")[0].split()[0] == hashlib.md5(b"piped", usedforsecurity=False).hexdigest()
    task("mchattr", "-H", "m-a: b", f"{stor}/a/piped")
    assert ann.request("HEAD", f"{stor}/a/piped").headers["m-a"] == "b"
    task("mln", f"{stor}/a/piped", f"{stor}/a/link")
    assert task("mget", f"{stor}/a/link") == ["piped"]
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "x").write_bytes(b"x")
    task("msync", tmp_path / "tree", f"{stor}/tree")
    task("msync", "-r", f"{stor}/tree", tmp_path / "back")
    assert (tmp_path / "back" / "x").read_bytes() == b"x"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(file, "inner/file")
    (tmp_path / "t.tgz").write_bytes(packed.getvalue())
    task("muntar", "-f", tmp_path / "t.tgz", f"{stor}/untarred")
    assert ann.request("GET", f"{stor}/untarred/inner/file").body == b"bytes"
    task("mrm", "-r", f"{stor}/untarred")
    task("mrm", f"{stor}/a/link")
    task("mmkdir", f"{stor}/empty")
    task("mrmdir", f"{stor}/empty")
    assert task("mls", stor) == ["a/", "tree/"]
    task("msign", f"{stor}/a/piped", code=2)
    assert "no key is named" in task.err
    assert task.made() == []
    assert all("authorization" not in headers for _, _, headers in task.asked)


def test_as_processes_in_pipes(task: Task, ann: Client, stor: str) -> None:
    environment = {
        **task.environment, "PATH": f"{REPO / 'bin'}:/usr/bin:/bin", "MOBULA_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    script = "printf 'b 1\\na 2\\nb 3\\n' | sort | mtee ~~/stor/sorted | maggr key,sum | mpipe ~~/stor/sums; mls ~~/stor | wc -l"
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [f"{stor}/sums", "2"]
    assert ann.request("GET", f"{stor}/sums").body == b"a\t2\nb\t4\n"
    assert task.made() == [Made(f"{stor}/sums")]
