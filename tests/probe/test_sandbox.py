"""What a task may and may not, on the kernel of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mobula.sandbox import cgroups
from mobula.sandbox.cgroups import Group, Limits
from mobula.sandbox.sandbox import Sandbox, SandboxError, Slot, TaskNotStarted
from tests.probe import machine, sandboxes
from tests.probe.sandboxes import PARENT, SMALL, running, sh
from tests.ways_out import CALL, LOOK, OUTS, PLANT, REFUSALS, SCRIPTS

pytestmark = pytest.mark.probe

PLACE = "/manta/dap/stor/object"


@pytest.fixture
def at() -> Iterator[Path]:
    with machine.folder() as folder:
        yield folder


@pytest_asyncio.fixture
async def box(at: Path) -> AsyncIterator[Sandbox]:
    async with running(at) as made:
        yield made


@pytest.fixture
def given(at: Path) -> Path:
    """An object."""
    path = at / "object"
    path.write_text("one two\nthree\n")
    return path


async def test_a_task_is_roots_bash_at_the_root_with_the_object_as_its_input(box: Sandbox, given: Path) -> None:
    said = await sh(box, "id -un; pwd; hostname; wc; readlink /proc/self/fd/0", given=given, place=PLACE)
    assert said.out.split() == ["root", "/", "task", "2", "3", "14", PLACE]
    assert (said.exit_code, said.err) == (0, "")


async def test_a_task_has_the_environment_that_it_is_given(box: Sandbox) -> None:
    said = await sh(box, "env")
    assert {line.partition("=")[0] for line in said.out.splitlines()} == {"HOME", "PATH", "PWD", "SHLVL", "_"}


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("true", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("no-such-command", 127),
        ("kill -9 $$", -9),
        ("kill -TERM $$", -15),
    ],
)
async def test_how_it_ended_is_told(box: Sandbox, script: str, code: int) -> None:
    said = await sh(box, script)
    assert said.exit_code == code
    assert not said.ended.out_of_memory
    assert not said.ended.cores


async def test_a_task_without_an_object_reads_nothing_or_a_pipe(box: Sandbox) -> None:
    assert (await sh(box, "cat; ls -A /manta")).out == ""
    source, target = os.pipe()
    os.write(target, b"through a pipe")
    os.close(target)
    try:
        assert (await sh(box, "cat; test -p /dev/stdin && echo .", pipe=source)).out == "through a pipe.\n"
    finally:
        os.close(source)


async def test_devices_and_names_of_the_streams_are_there(box: Sandbox, given: Path) -> None:
    script = "cat /dev/stdin | wc -l; echo a >> /dev/stdout; echo b >> /dev/stderr; head -c3 /dev/urandom | wc -c; cat /dev/null; ls /dev"
    said = await sh(box, script, given=given, place=PLACE)
    assert said.out.split()[:3] == ["2", "a", "3"]
    assert said.out.split()[3:] == sorted(
        ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"]
    )
    assert said.err == "b\n"


@pytest.mark.parametrize(
    "name",
    ["a b", "ä€🐟", "new\nline", "-rf", "x" * 255, "/".join(["y" * 200] * 4), "'\"$(id)`", "%20"],
    ids=["space", "unicode", "newline", "dash", "long", "deep", "quotes", "percent"],
)
async def test_an_object_is_found_at_any_name(box: Sandbox, given: Path, name: str) -> None:
    place = f"/manta/dap/stor/{name}"
    said = await sh(box, "find /manta -type f -exec cat {} +; find /manta -type f -print0", given=given, place=place)
    assert said.out == f"one two\nthree\n{place}\0"


@pytest.mark.parametrize(
    "harm",
    [
        "echo x > $O", "echo x >> $O", "truncate -s0 $O", "rm -f $O", "mv -f $O $O.1", "chmod 777 $O", "chown 5 $O",
        "touch -d 2001-01-01 $O",
        "ln $O $O.1", "mkdir ${O%/*}/d", "echo x > /proc/self/fd/0", "echo x > /dev/stdin", "echo x > /proc/1/root$O", "umount $O",
        "rm -r /manta",
        "python3 -c 'import mmap,os; mmap.mmap(os.open(\"'$O'\",0),9,mmap.MAP_SHARED,mmap.PROT_WRITE)'",
        "python3 -c 'import os; os.open(\"'$O'\",os.O_RDWR)'",
    ],
)  # fmt: skip
async def test_an_object_can_not_be_changed(box: Sandbox, given: Path, harm: str) -> None:
    before = given.stat()
    said = await sh(box, f"O={PLACE}; ( {harm} ) 2>/dev/null && echo done; cat $O", given=given, place=PLACE)
    assert said.out == "one two\nthree\n"
    after = given.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns, after.st_nlink) == (
        before.st_mode, before.st_uid, before.st_mtime_ns, before.st_nlink,
    )  # fmt: skip


async def test_an_object_that_is_deleted_meanwhile_is_read_to_its_end(box: Sandbox, given: Path) -> None:
    script = "read line; echo $line; touch /var/tmp/reads; sleep 0.5; cat"
    task = asyncio.create_task(sh(box, script, given=given, place=PLACE))
    await asyncio.to_thread(machine.until, "it reads", (box.files / "var/tmp/reads").exists)
    given.unlink()
    assert (await task).out == "one two\nthree\n"


async def test_whatever_a_task_leaves_behind_ends_with_it(box: Sandbox) -> None:
    script = "for i in $(seq 20); do setsid bash -c 'trap : TERM HUP INT; while :; do sleep 999; done' & done; sleep 0.1; exit 7"
    began_s = time.monotonic()
    assert (await sh(box, script)).exit_code == 7
    assert time.monotonic() - began_s < 5
    assert box.processes == 1


async def test_a_task_can_be_killed(box: Sandbox) -> None:
    task = asyncio.create_task(sh(box, "trap '' TERM; sleep 999 & sleep 999"))
    await asyncio.to_thread(machine.until, "the task runs", lambda: box.processes > 3)
    box.kill()
    assert (await task).exit_code == -signal.SIGKILL
    assert box.processes == 1
    assert (await sh(box, "echo next")).out == "next\n"


@pytest.mark.parametrize(
    ("script", "programs"),
    [
        ("kill -SEGV $$", ["bash"]),
        ("bash -c 'kill -ABRT $$'; true", ["bash"]),
        ("(setsid sh -c 'kill -SEGV $$' &); sleep 0.2; true", ["sh"]),
        ("ulimit -c 0; bash -c 'kill -QUIT $$'; true", []),
        ("bash -c 'kill -KILL $$'; true", []),
        ("exit 139", []),
    ],
)
async def test_a_core_of_any_descendant_is_seen(box: Sandbox, script: str, programs: list[str]) -> None:
    for _ in range(2):
        assert list((await sh(box, script)).ended.cores) == programs


async def test_the_limit_of_memory_is_seen_and_the_sandbox_lives_on(box: Sandbox) -> None:
    said = await sh(box, "python3 -c 'bytearray(200 << 20)'; echo $?")
    assert (said.ended.out_of_memory, said.out) == (True, "137\n")
    shared = await sh(box, "head -c 40M /dev/zero > /dev/shm/x; echo $?")
    assert shared.out == "0\n"
    again = await sh(box, "head -c 40M /dev/zero > /dev/shm/x; echo $?")
    assert (again.ended.out_of_memory, again.out) == (False, "0\n")  # what one task left does not count as another's


FORKS = """
import os, time
children = 0
try:
    while children < 300:
        if not os.fork():
            time.sleep(60)
        children += 1
except BlockingIOError:
    print(children)
"""


async def test_a_fork_bomb_stays_within_its_sandbox(box: Sandbox) -> None:
    said = await sh(box, f"exec python3 -c '{FORKS}'")
    assert 0 < int(said.out) < SMALL.processes
    assert box.processes == 1
    assert (await sh(box, "echo lives")).out == "lives\n"


SPIN_S = 2.0
SPIN = f"timeout {SPIN_S} bash -c 'while :; do :; done'"
TRIES = 5


async def spin(box: Sandbox, count: int) -> float:
    """So many processes do nothing as fast as they can; the seconds that they got of the processors."""
    return (await sh(box, f"for i in $(seq {count}); do {SPIN} & done; wait; true")).ended.user_us / 1e6


async def spin_on_host() -> float:
    """As many as there are processors, beside all sandboxes."""
    before = os.times().children_user
    for one in [await asyncio.create_subprocess_shell(SPIN) for _ in range(os.cpu_count() or 1)]:
        await one.wait()
    return os.times().children_user - before


async def part_of_last(*spinning: Callable[[], Awaitable[float]]) -> float:
    """Which part of what all got the last one got, once nobody else has much of the processors."""
    for _ in range(TRIES):
        got = await asyncio.gather(*(one() for one in spinning))
        if sum(got) > 0.75 * SPIN_S * (os.cpu_count() or 1):
            return got[-1] / sum(got)
    pytest.skip("others use the processors of this machine")


async def test_jobs_have_equal_shares_of_the_processors(at: Path) -> None:
    async with running(at, share="many") as many, running(at, share="many") as more, running(at, share="few") as few:
        part = await part_of_last(lambda: spin(many, 8), lambda: spin(more, 8), lambda: spin(few, 2))
    # By processes it would be 0.11. Two on one processor have a quarter: the kernel does not part them when they are idle.
    assert part > 0.2


async def test_tasks_leave_the_processors_to_the_host(at: Path) -> None:
    alone_s = await spin_on_host()
    async with running(at) as box:
        _, beside_s = await asyncio.gather(spin(box, 8), spin_on_host())
    assert beside_s > 0.8 * alone_s  # by processes it would be a fifth


async def test_when_the_host_has_no_memory_a_task_ends_first(box: Sandbox) -> None:
    assert (await sh(box, "cat /proc/self/oom_score_adj")).out == "1000\n"


async def test_tasks_of_a_sandbox_see_each_others_files_and_nothing_else_of_each_other(box: Sandbox) -> None:
    await sh(box, "echo a > /var/tmp/a; echo b > /tmp/b; echo c > /dev/shm/c; (sleep 99 &)")
    said = await sh(box, "cat /var/tmp/a /tmp/b; ls /dev/shm; ps -eo comm= | sort | tr '\\n' ' '")
    assert said.out.split()[:2] == ["a", "b"]
    assert "sleep" not in said.out
    assert "c" not in said.out.split()


async def test_a_sandbox_sees_nothing_of_another_one(at: Path) -> None:
    async with running(at) as one, running(at) as other:
        task = asyncio.create_task(sh(one, PLANT))
        await asyncio.to_thread(machine.until, "the planted task is up", (one.files / "var/tmp/ready").exists)
        assert (await sh(other, LOOK)).out == ""
        one.kill()
        await task
    async with running(at) as after:
        assert (await sh(after, LOOK)).out == ""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of calls are of x86_64")
@pytest.mark.parametrize("way", OUTS)
async def test_a_way_out_is_refused(box: Sandbox, way: str) -> None:
    said = await sh(box, f"exec python3 - <<'X'\n{CALL}{OUTS[way]}\nX")
    assert said.out.strip() in REFUSALS


@pytest.mark.parametrize("script", SCRIPTS)
async def test_files_and_tools_lead_nowhere(box: Sandbox, script: str) -> None:
    said = await sh(box, f"( {script} ) >/dev/null 2>&1 && echo done; echo alive")
    assert said.out == "alive\n"


async def test_the_root_of_a_chroot_is_the_sandboxs(box: Sandbox) -> None:
    script = """mkdir -p /c; exec python3 -c "
import os
os.chroot('/c')
for _ in range(50): os.chdir('..')
os.chroot('.')
print(*sorted(os.listdir('/')))" """
    inside = (await sh(box, "ls -A / | sort | tr '\\n' ' '")).out.split()
    assert set((await sh(box, script)).out.split()) <= {*inside, "c"}


async def test_there_is_no_network_but_the_sandboxs_own(box: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as of_host:
        port = of_host.getsockname()[1]
        said = await sh(
            box,
            f"ls /sys/class/net 2>/dev/null; cat /proc/net/dev | tail -n +3; (echo > /dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo in",
        )
    assert [line.split(":")[0].strip() for line in said.out.splitlines()] == ["lo"]


async def test_a_server_of_the_host_may_listen_in_there(box: Sandbox) -> None:
    listeners = box.listen(80)
    servers = [await asyncio.start_server(_hello, sock=one) for one in listeners]
    try:
        said = await sh(box, "for to in 127.0.0.1 ::1; do exec 3<>/dev/tcp/$to/80; cat <&3; exec 3<&-; done")
        assert said.out == "hello\nhello\n"
    finally:
        for server in servers:
            server.close()


async def _hello(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "script",
    [
        (
            "cd /tmp; mkdir t; echo a > t/f; chown 33:44 t/f; chmod 4755 t/f; tar czf t.tgz t; rm -r t; tar xzpf t.tgz; "
            "stat -c '%u %g %a' t/f | grep '33 44 4755'"
        ),
        "useradd -m bob && su bob -c 'id -un' | grep bob", "mkfifo /tmp/p && test -p /tmp/p",
        "cp /bin/true /usr/local/bin/tool && /usr/local/bin/tool",
        "echo a | tee /var/tmp/a | sort | xargs echo", "python3 -c 'import subprocess; subprocess.run([\"true\"], check=True)'",
        "diff <(echo a) <(echo a)", "timeout 1 sleep 0.01", "script -qc 'test -t 0' /dev/null",
    ],
)  # fmt: skip
async def test_ordinary_work_goes_on(box: Sandbox, script: str) -> None:
    said = await sh(box, script)
    assert said.exit_code == 0, said.err


async def test_what_is_laid_into_it_is_there(at: Path) -> None:
    async with running(at, files={"assets/dap/stor/tool": "#!/bin/sh\necho ran\n"}) as box:
        assert (await sh(box, "sh /assets/dap/stor/tool")).out == "ran\n"


@pytest.mark.parametrize("length", [100_000, 131_000])
async def test_a_long_script_runs(box: Sandbox, length: int) -> None:
    assert (await sh(box, "echo ok # ".ljust(length, "x"))).out == "ok\n"


async def test_what_can_not_be_begun_is_told_and_the_sandbox_lives(box: Sandbox, given: Path) -> None:
    for script, place in (("a\0b", ""), ("x" * 1_000_000, ""), ("true", "/nowhere/" + "y" * 300)):
        with pytest.raises(TaskNotStarted):
            await sh(box, script, given=given if place else None, place=place)
    assert (await sh(box, "echo lives")).out == "lives\n"


async def test_a_sandbox_that_can_not_be_made_says_why(at: Path) -> None:
    slot = Slot(70, machine.root())
    cgroups.prepare(PARENT)
    try:
        box = Sandbox(slot, at / "s", Group(PARENT, "wrong"), at / "a")
        box.prepare()
        (box.files / "proc").write_text("a file where a folder has to be")
        with pytest.raises(SandboxError, match=r"make a sandbox: .*proc.*Not a directory"):
            await box.start(sandboxes.program(), SMALL)
        await box.close()
    finally:
        slot.close()
        sandboxes.remove_parent()


# What is left.


def facts() -> dict[str, object]:
    """Of this machine, what a sandbox might leave."""
    return {
        "mounts": Path("/proc/self/mountinfo").read_text().count("\n"),
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "groups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{PARENT}*")),
        "children": Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split(),
    }


async def test_what_has_ended_may_be_told_to_end_once_more(at: Path) -> None:
    async with running(at) as box:
        pass
    box.kill()


async def test_nothing_is_left(at: Path, given: Path) -> None:
    sandboxes.program()
    async with running(at):
        pass  # what Python itself opens the first time
    before = facts()
    async with running(at) as box:
        for one in box.listen(80):
            one.close()
        for n in range(100):
            assert (await sh(box, "wc -c", given=given, place=f"{PLACE}{n}")).out == "14\n"
    assert facts() == before
    assert [path.name for path in at.iterdir()] == [given.name]


AGENT = """
import asyncio, sys
from pathlib import Path
from mobula.sandbox.cgroups import Group, Limits, prepare
from mobula.sandbox.sandbox import Command, Sandbox, Slot
async def main(image, program, at, parent):
    prepare(parent)
    box = Sandbox(Slot(71, Path(image)), Path(at) / "s", Group(parent, "agent"), Path(at) / "a")
    box.prepare()
    await box.start(Path(program), Limits(64 << 20, 64))
    print(box._pid, flush=True)
    await box.run(Command("setsid sleep 4321 & sleep 4321", {}), 2, 2)
asyncio.run(main(*sys.argv[1:]))
"""


def test_a_sandbox_whose_agent_is_killed_ends(at: Path) -> None:
    argv = [
        sys.executable,
        "-c",
        textwrap.dedent(AGENT),
        str(machine.root()),
        str(sandboxes.program()),
        str(at),
        PARENT,
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        group = Group(PARENT, "agent")  # by now the parent is there
        machine.until("the task runs", lambda: group.processes() >= 4)
        agent.kill()
    machine.until("the sandbox is gone", lambda: not Path(f"/proc/{pid}").exists())
    machine.until("its control groups are empty", group.remove)
    sandboxes.remove_parent()


def test_a_limit_is_a_cap_and_nothing_is_reserved(at: Path) -> None:
    async def many() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(_one(at))

    asyncio.run(many())


async def _one(at: Path) -> None:
    async with running(at, Limits(8 << 30, 64)) as box:
        assert (await sh(box, "echo ok")).out == "ok\n"
