"""What the words of mjob mean: every form that the posts and manuals have; and the lines that it draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.client.commands import job_document, mjob, mjob_share
from mobula.client.commands.command import UsageError, choose, parser_of
from mobula.client.commands.job_document import again, encode, read_document
from mobula.client.commands.job_inputs import names
from mobula.client.commands.job_lists import lines
from mobula.client.commands.job_progress import Tasks, duration, line
from mobula.client.errors import MobulaError
from mobula.client.jobs import job_path

ID = "8f1a2ae0-6b3b-4a1c-9a52-3f0f6c6f6f10"


def typed(text: str) -> list[str]:
    """What a shell makes of a line: the words after `mjob`."""
    script = "set -f; mjob() { printf '%s\\0' \"$@\"; }\n" + text
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return os.fsdecode(done.stdout).split("\0")[:-1]


def own_path(path: str) -> str:
    return f"/dap{path[2:]}" if path.startswith("~~") else path


def options_of(words: list[str]) -> Any:
    name, command, rest = choose("mjob", mjob.COMMAND, words)
    return parser_of(name, command).parse_args(rest)


def document(text: str) -> dict[str, Any]:
    """The job that a line of a shell would post."""
    wish = options_of(typed(text))
    phases = job_document.phases_of(wish.steps, wish.expression)
    found: dict[str, Any] = json.loads(encode(job_document.document_of(phases, wish.name, own_path)))
    return found


# the acceptance commands; <NAMES and what feeds them left out

S2 = """export KARTLYTICS_OUTDIR=/dap/public/kartlytics/generated
mjob create -w -s /dap/public/kartlytics/kartlytics.tgz -s /dap/public/kartlytics/bin/video-transcribe --init \
"cd /var/tmp && tar xzf /assets/dap/public/kartlytics/kartlytics.tgz" \
-m "/assets/dap/public/kartlytics/bin/video-transcribe /var/tmp/kartlytics $KARTLYTICS_OUTDIR "'$MANTA_INPUT_FILE'"""
S3 = """export KARTLYTICS_TARBALL=/dap/public/kartlytics/kartlytics.tgz
mjob create -w -s /dap/public/kartlytics/bin/make-tarball -r "/assets/dap/public/kartlytics/bin/make-tarball $KARTLYTICS_TARBALL" """
RUN_ALL = """mjob create -w -s /b/find-videos -r "/assets/b/find-videos /v | xargs mcat" -s /b/video-transcribe -s /b/t.tgz \
--init "cd /var/tmp && tar xzf /assets/b/t.tgz" -m "/assets/b/video-transcribe /var/tmp/kartlytics /o "'$MANTA_INPUT_FILE'"""
METADATA = """mjob create -w -s /b/f -r "/assets//b/f /v | xargs mcat" -s /b/m -m "/assets//b/m /o "'$MANTA_INPUT_FILE' \
-r "json -g | mpipe /o/summary.json" """


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        (S2, [{
            "assets": ["/dap/public/kartlytics/kartlytics.tgz", "/dap/public/kartlytics/bin/video-transcribe"], "type": "map",
            "init": "cd /var/tmp && tar xzf /assets/dap/public/kartlytics/kartlytics.tgz",
            "exec": "/assets/dap/public/kartlytics/bin/video-transcribe /var/tmp/kartlytics "
            "/dap/public/kartlytics/generated $MANTA_INPUT_FILE",
        }]),
        (S3, [{
            "assets": ["/dap/public/kartlytics/bin/make-tarball"], "type": "reduce",
            "exec": "/assets/dap/public/kartlytics/bin/make-tarball /dap/public/kartlytics/kartlytics.tgz",
        }]),
        ("mjob create -qom 'grep poochy'", [{"type": "map", "exec": "grep poochy"}]),
        (RUN_ALL, [
            {"assets": ["/b/find-videos"], "type": "reduce", "exec": "/assets/b/find-videos /v | xargs mcat"},
            {"assets": ["/b/video-transcribe", "/b/t.tgz"], "type": "map", "init": "cd /var/tmp && tar xzf /assets/b/t.tgz",
             "exec": "/assets/b/video-transcribe /var/tmp/kartlytics /o $MANTA_INPUT_FILE"},
        ]),
        (METADATA, [
            {"assets": ["/b/f"], "type": "reduce", "exec": "/assets//b/f /v | xargs mcat"},
            {"assets": ["/b/m"], "type": "map", "exec": "/assets//b/m /o $MANTA_INPUT_FILE"},
            {"type": "reduce", "exec": "json -g | mpipe /o/summary.json"},
        ]),
        ("mjob create --close -or 'echo hello'", [{"type": "reduce", "exec": "echo hello"}]),
        ("mjob create -o -m wc", [{"type": "map", "exec": "wc"}]),
        ("mjob create -o 'wc -w' ^^ 'maggr mean'", [{"type": "map", "exec": "wc -w"}, {"type": "reduce", "exec": "maggr mean"}]),
        ("mjob create --memory 4096 --disk 16 -m cat", [{"type": "map", "memory": 4096, "disk": 16, "exec": "cat"}]),
        ("mjob create -m wc --count 4 -r cat -r 'sort'", [
            {"type": "map", "exec": "wc"}, {"type": "reduce", "count": 4, "exec": "cat"}, {"type": "reduce", "exec": "sort"},
        ]),
        ("mjob create -s ~~/stor/script.sh -m '/assets/$MANTA_USER/stor/script.sh'", [
            {"assets": ["/dap/stor/script.sh"], "type": "map", "exec": "/assets/$MANTA_USER/stor/script.sh"},
        ]),
        ("mjob create --map=wc --image=1.2.x --reduce=cat --assets=//a//b --map -", [
            {"type": "map", "exec": "wc"}, {"type": "reduce", "image": "1.2.x", "exec": "cat"},
            {"assets": ["//a//b"], "type": "map", "exec": "-"},
        ]),
        ("mjob create -w 'cut -f2' ^ cat ^^^^ 'sort  -u' ^^ uniq --open -s /a --count 3 --init 'x  y'", [
            {"assets": ["/a"], "type": "map", "init": "x  y", "exec": "cut -f2"},
            {"assets": ["/a"], "type": "map", "init": "x  y", "exec": "cat"},
            {"assets": ["/a"], "type": "reduce", "init": "x  y", "count": 2, "exec": "sort  -u"},
            {"assets": ["/a"], "type": "reduce", "init": "x  y", "count": 3, "exec": "uniq"},
        ]),
        ("mjob create 'sed s/^/x/' ^^^ echo a^b", [
            {"type": "map", "exec": "sed s/^/x/"}, {"type": "reduce", "count": 1, "exec": "echo a^b"},
        ]),
    ],
)  # fmt: skip
def test_the_phases_of_a_line(text: str, phases: list[dict[str, Any]]) -> None:
    found = document(text)
    assert found == {"phases": phases}
    assert [list(phase) for phase in found["phases"]] == [list(phase) for phase in phases]


def test_a_name_is_posted_only_if_there_is_one() -> None:
    text = "mjob create -n NAME -m 'grep -ci x' -r \"awk '{s+=\\$1} END {print s}'\""
    assert document(text) == {
        "name": "NAME",
        "phases": [{"type": "map", "exec": "grep -ci x"}, {"type": "reduce", "exec": "awk '{s+=$1} END {print s}'"}],
    }
    assert document("mjob create -n '' -m x")["name"] == ""


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(lambda text: text[0] != "-"))
def test_a_command_is_kept_byte_for_byte(command: str) -> None:
    wish = options_of(["create", "-m", command, "-r", command])
    posted = encode({"phases": job_document.phases_of(wish.steps, [])})
    assert [phase["exec"] for phase in json.loads(posted)["phases"]] == [command] * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mjob create", "At least one map or reduce task must be specified"),
        ("mjob create -s /a", "At least one map or reduce task must be specified"),
        ("mjob create -m x cat ^^ wc", "cannot use -m/-r along with a job expression"),
        ("mjob create -m 'msplit -n 4' -r 'sort | uniq -c' --count 4", "--count 4"),
        ("mjob create -m x --init y -s /a", "--init y, -s /a"),
        ("mjob create wc ^^", "missing beside '^^'"),
        ("mjob create ^ wc", "missing beside '^'"),
        ("mjob create $'-mcat \\xff'", "not UTF-8"),
    ],
)
def test_what_is_no_job_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        document(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [["create", "-m"], ["create", "--count", "x", "-m", "y"], ["create", "--open", "--close"], ["create", "-b", "0"], ["get"],
     ["cost", ID], [], ["create", "--frequently"], ["retry"]],
)  # fmt: skip
def test_what_can_not_be_parsed_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options_of(words)
    assert caught.value.code == 2
    known = bool(words) and words[0] in mjob.BELOW
    assert (f"mjob {words[0]}: error: " if known else "mjob: error: ") in capsys.readouterr().err


@pytest.mark.parametrize("words", [["help"], ["-h"], *([word, name] for word in ["help"] for name in mjob.BELOW)])
def test_help_is_had_of_everything(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options_of(words)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {' '.join(['mjob', *words[1:]])} [options]")
    assert "mjob" in text.partition("example:")[2]
    assert "exit codes:" in text


def test_a_file_is_posted_as_it_is_but_for_the_name() -> None:
    text = json.dumps({"name": "a", "phases": [{"exec": "ä"}], "transient": True}).encode()
    assert read_document(text, None) == json.loads(text)
    assert read_document(text, "b") == {**json.loads(text), "name": "b"}
    for wrong in (b"", b"[]", b"{", b"\xff"):
        with pytest.raises(UsageError):
            read_document(wrong, None)


def test_the_document_of_a_job_that_was() -> None:
    status = {"id": ID, "name": "n", "transient": False, "state": "done", "phases": [{"exec": "x", "type": "map"}]}
    assert again(status) == {"name": "n", "transient": False, "phases": [{"exec": "x", "type": "map"}]}


@pytest.mark.parametrize(
    ("job", "path"),
    [(ID, f"~~/jobs/{ID}"), (f"{ID}/", f"~~/jobs/{ID}"), (f"/dap/jobs/{ID}", f"/dap/jobs/{ID}"), (f"~~/jobs/{ID}/", f"~~/jobs/{ID}"),
     (f"jobs/{ID}", f"~~/jobs/{ID}"), (ID.upper(), f"~~/jobs/{ID}")],
)  # fmt: skip
def test_a_job_is_its_id_or_what_ends_in_it(job: str, path: str) -> None:
    assert job_path(job) == path


@pytest.mark.parametrize("job", ["", "/", "x", "~~/jobs", f"{ID}/live", ID[:-1]])
def test_what_names_no_job_is_refused(job: str) -> None:
    with pytest.raises(MobulaError, match="neither an id nor a path"):
        job_path(job)


def test_names_are_as_they_were_typed_but_for_the_account() -> None:
    text = [b"/a b\n", b"//a///b/\r\n", b"\n", b"~~/stor/x\n", b"~~\n", b"~~a\n", b" /y", "/ä\n".encode(), b"/\xff"]
    assert list(names(text, "ann")) == [
        b"/a b", b"//a///b/", b"/ann/stor/x", b"/ann", b"~~a", b" /y", "/ä".encode(), b"/\xff",
    ]  # fmt: skip


@given(st.lists(st.binary(max_size=5)))
def test_lines_are_the_same_however_they_come(chunks: list[bytes]) -> None:
    expected = [part.decode(errors="replace") for part in b"".join(chunks).split(b"\n") if part]
    assert list(lines(chunks)) == expected


def status_of(state: str, tasks: int, done: int, errors: int = 0, *, input_done: bool = True) -> dict[str, Any]:
    return {"state": state, "inputDone": input_done, "stats": {"tasks": tasks, "tasksDone": done, "errors": errors}}


def test_how_far_a_job_is() -> None:
    assert line(status_of("running", 40, 12, 1), 6.0, 2) == "12/40 tasks done, 1 error, ETA 17s"
    assert line(status_of("running", 40, 12), 6.0, 12) == "12/40 tasks done, 0 errors"
    assert line(status_of("running", 40, 40), 6.0, 12) == "40/40 tasks done, 0 errors"
    assert line(status_of("running", 3, 1, input_done=False), 6.0, 0) == "1/3 tasks done, 0 errors, input is open"
    assert line(status_of("done", 3, 3, 2), 6.0, 0) == "3/3 tasks done, 2 errors"
    assert [duration(s) for s in (0.2, 59.4, 59.6, 185, 7800)] == ["0s", "59s", "1m00s", "3m05s", "2h10m"]


def test_the_line_is_drawn_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mobula.client.commands.job_progress.PERIOD_S", -1.0)
    with Tasks(quiet=False) as shown:
        shown.show(status_of("running", 2, 1))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Tasks(quiet=True) as shown:
        shown.show(status_of("running", 2, 1))
    assert capsys.readouterr().err == ""
    with Tasks(quiet=False) as shown:
        for done in (0, 1):
            shown.show(status_of("running", 2, done, input_done=False))
    assert capsys.readouterr().err == (
        "\r\x1b[K0/2 tasks done, 0 errors, input is open\r\x1b[K1/2 tasks done, 0 errors, input is open\n"
    )


def test_a_page_shows_a_job_and_nothing_in_it_is_html() -> None:
    status = {
        "id": ID, "name": "<n>", "state": "done", "cancelled": True, "timeCreated": "T",
        "stats": {"errors": 1, "outputs": 1, "retries": 0, "tasks": 2, "tasksDone": 2},
        "phases": [{"type": "map", "init": "a && b", "exec": "<x>", "assets": ["/a/<b>"], "memory": 256}],
    }  # fmt: skip
    many = [f"/a/{n}" for n in range(mjob_share.SHOWN_MAX + 1)]
    text = mjob_share.page(
        status,
        {"Inputs": many, "Outputs": []},
        ['{"what": "phase 0", "message": "<m>", "code": "C"}', "<no JSON>"],
        "# <readme>",
        lambda path: "" if path == "/a/3" else f"http://h{path}",
    )
    for said in (
        f"<title>Job {ID}: &lt;n&gt;</title>", "<pre># &lt;readme&gt;</pre>", "done, cancelled; created T; 1 outputs, 1 errors",
        "<pre>a &amp;&amp; b</pre>", "<pre>&lt;x&gt;</pre>", '<a href="http://h/a/&lt;b&gt;">/a/&lt;b&gt;</a>',
        "({&quot;memory&quot;: 256})",
        '<li><a href="http://h/a/2">/a/2</a></li>', "<li>/a/3</li>", "<li>and more</li>", "<h2>Outputs</h2>\n<p>none</p>",
        "<li>phase 0: &lt;m&gt; (C)</li>", "<li>&lt;no JSON&gt;</li>",
    ):  # fmt: skip
        assert said in text, said
    assert "/a/1000" not in text
