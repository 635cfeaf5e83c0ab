"""The local registry with real processes, real signals and a directory in which things go wrong."""

import asyncio
import logging
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from ketch.errors import RegistryError
from ketch.registries import folder as folders
from ketch.registries.folder import Folder
from ketch.registries.local import LocalRegistry
from ketch.registries.reader import Reader
from ketch.registries.record import MAX_RECORD, encode
from ketch.registry import Instance
from ketch.url import Url

REGISTER = """
    import asyncio, os, subprocess, sys
    from pathlib import Path
    from ketch.registries.local import LocalRegistry
    from ketch.registry import Instance

    async def main():
        async with LocalRegistry(Path(sys.argv[1])) as registry:
            await registry.register(Instance("svc", sys.argv[2], "h:1"))
            exec(sys.argv[3])
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""

ONE = Instance("svc", "one", "h:1")
TWO = Instance("svc", "two", "h:1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "registry"


@contextmanager
def another_process(path, instance_id, then="pass"):
    """Run a process that has registered an instance; it ends when its standard input is closed."""
    code = textwrap.dedent(REGISTER)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), instance_id, then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while (line := process.stdout.readline().strip()) and line != "ready":
                process.told = line
            assert line == "ready"
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()


async def until(snapshots, *ids):
    async with asyncio.timeout(15):
        while tuple(instance.id for instance in await anext(snapshots)) != ids:
            pass


async def test_an_instance_of_another_process_is_seen_and_goes_with_its_process(path):
    with another_process(path, "one") as process:
        async with LocalRegistry(path) as registry, aclosing(registry.watch("svc")) as snapshots:
            await until(snapshots, "one")
            process.stdin.close()
            await until(snapshots)


async def test_a_killed_process_is_gone_and_so_is_its_file(path):
    with another_process(path, "one") as process:
        async with LocalRegistry(path) as registry, aclosing(registry.watch("svc")) as snapshots:
            await until(snapshots, "one")
            process.kill()
            await until(snapshots)
    assert list(path.iterdir()) == []


async def test_a_stopped_process_is_still_there(path):
    with another_process(path, "one") as process:
        async with LocalRegistry(path) as registry, aclosing(registry.watch("svc")) as snapshots:
            await until(snapshots, "one")
            process.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            await registry.register(TWO)
            await until(snapshots, "one", "two")
            process.send_signal(signal.SIGCONT)


async def test_a_forked_child_does_not_keep_a_dead_parent_alive(path):
    fork = "child = os.fork()\nif not child: import time; time.sleep(60); os._exit(0)\nprint(child, flush=True)"
    with another_process(path, "one", fork) as process:
        child = int(process.told)
        try:
            async with LocalRegistry(path) as registry, aclosing(registry.watch("svc")) as snapshots:
                await until(snapshots, "one")
                process.kill()
                await until(snapshots)
        finally:
            os.kill(child, signal.SIGKILL)  # which fails unless it still ran


async def test_a_child_that_inherits_open_files_does_not_keep_a_dead_parent_alive(path):
    spawn = "child = subprocess.Popen(['sleep', '60'], close_fds=False); print(child.pid, flush=True)"
    with another_process(path, "one", spawn) as process:
        try:
            async with LocalRegistry(path) as registry, aclosing(registry.watch("svc")) as snapshots:
                await until(snapshots, "one")
                process.kill()
                await until(snapshots)
        finally:
            os.kill(int(process.told), signal.SIGKILL)


async def test_a_forked_child_that_closes_the_registry_takes_nothing_away(path):
    fork = """if not (child := os.fork()):
        for held, _ in registry._held.values():
            registry._folder.remove(held)
        os._exit(0)
print(os.waitpid(child, 0), flush=True)"""
    with another_process(path, "one", fork):
        async with LocalRegistry(path) as registry, aclosing(registry.watch("svc")) as snapshots:
            await registry.register(TWO)
            await until(snapshots, "one", "two")


async def test_two_that_register_one_id_do_not_fight_over_it(path, caplog):
    async with (
        LocalRegistry(path) as old,
        LocalRegistry(path) as new,
        aclosing(new.watch("svc")) as snapshots,
    ):
        await old.register(ONE)
        await until(snapshots, "one")
        newer = Instance("svc", "one", "h:2")
        await new.register(newer)
        assert await anext(snapshots) == (newer,)
        async with asyncio.timeout(15):
            while "registered again by another process" not in caplog.text:  # noqa: ASYNC110 - a log can't be awaited
                await asyncio.sleep(0.01)
        await old.deregister(ONE)
        await old.close()
        async with aclosing(new.watch("svc")) as later:
            assert await anext(later) == (newer,)
    assert len(caplog.records) == 1


async def test_a_removed_directory_is_made_again_with_what_was_in_it(path, caplog):
    async with LocalRegistry(path) as owner, LocalRegistry(path) as other:
        await owner.register(ONE)
        await owner.register(TWO)
        async with aclosing(other.watch("svc")) as snapshots:
            await until(snapshots, "one", "two")
            shutil.rmtree(path)
            async with asyncio.timeout(15):
                while len(list(path.glob("*.json"))) < 2:  # noqa: ASYNC110 - a directory can't be awaited
                    await asyncio.sleep(0.01)
            await owner.register(Instance("svc", "three", "h:1"))
            assert [instance.id for instance in await anext(snapshots)] == ["one", "three", "two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert sum("registered again: 'one', 'two'" in line.message for line in caplog.records) == 1
    assert sum("was removed; going on" in line.message for line in caplog.records) <= 1
    assert len(caplog.records) <= 2


async def test_those_who_died_with_their_directory_are_forgotten(path, monkeypatch, caplog):
    monkeypatch.setattr("ketch.registries.reader.GRACE", 0.2)
    with another_process(path, "one") as process:
        async with LocalRegistry(path) as registry, aclosing(registry.watch("svc")) as snapshots:
            await until(snapshots, "one")
            process.kill()
            shutil.rmtree(path)
            await until(snapshots)
            await registry.register(TWO)
            await until(snapshots, "two")


async def test_a_single_file_that_is_removed_is_written_again(path, caplog):
    async with LocalRegistry(path) as registry, aclosing(registry.watch("svc")) as snapshots:
        await registry.register(ONE)
        await until(snapshots, "one")
        for file in path.iterdir():
            file.unlink()
        await until(snapshots)
        await until(snapshots, "one")
    assert [line.levelno for line in caplog.records] == [logging.WARNING]


async def test_watchers_outlive_a_directory_that_cannot_be_read_for_a_while(path, tmp_path, caplog):
    async with LocalRegistry(path) as owner, LocalRegistry(path) as other:
        await owner.register(ONE)
        async with aclosing(other.watch("svc")) as snapshots:
            await until(snapshots, "one")
            path.rename(tmp_path / "aside")
            path.write_text("not a directory")
            async with asyncio.timeout(15):
                while "can't be read" not in caplog.text:  # noqa: ASYNC110 - a log can't be awaited
                    await asyncio.sleep(0.01)
            path.unlink()
            (tmp_path / "aside").rename(path)
            await owner.register(TWO)
            await until(snapshots, "one", "two")
    assert sum("can't be read" in line.message for line in caplog.records) == 1


async def test_a_record_that_is_replaced_is_never_missed(path):
    """A reader in another thread, which a change can overtake anywhere, always sees exactly one record."""

    def look_on():
        reader = Reader(Folder(path))
        while not done.is_set():
            counts.append(len(reader.look()))

    done, counts = threading.Event(), []
    async with LocalRegistry(path) as registry:
        await registry.register(ONE)
        thread = threading.Thread(target=look_on)
        thread.start()
        for port in range(500):
            await registry.register(Instance("svc", "one", f"h:{port}"))
        done.set()
        thread.join()
    assert set(counts) == {1}


@pytest.mark.parametrize("place", ["file/registry", "file"])
async def test_a_directory_that_cannot_be_made_is_named_with_what_to_do(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match=rf"{tmp_path}/{place}.*local:///path"):
        await LocalRegistry(tmp_path / place).open()


async def test_a_directory_that_cannot_be_written_is_named_with_what_to_do():
    with pytest.raises(RegistryError, match=r"/proc/ketch can't be made: .*local:///path"):
        await LocalRegistry(Path("/proc/ketch")).open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory somebody else's")
async def test_the_directory_of_another_user_is_refused(path):
    path.mkdir(0o700)
    os.chown(path, 65534, -1)
    with pytest.raises(RegistryError, match="belongs to user 65534"):
        await LocalRegistry(path).open()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
async def test_a_directory_that_others_may_write_is_refused(path, mode):
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(RegistryError, match="others may write"):
        await LocalRegistry(path).open()


async def test_a_symbolic_link_is_refused(path, tmp_path):
    (tmp_path / "elsewhere").mkdir(0o700)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RegistryError, match="symbolic link"):
        await LocalRegistry(path).open()


async def test_by_default_it_is_a_private_directory_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ours = tmp_path / f"ketch-{os.geteuid()}"
    async with LocalRegistry() as registry:
        assert registry.location == str(ours / "registry")
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in (ours, ours / "registry")] == [0o700, 0o700]
    ours.chmod(0o777)
    with pytest.raises(RegistryError, match=rf"others may write {ours}"):
        await LocalRegistry().open()


async def test_the_users_runtime_directory_is_preferred_where_it_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    runtime = tmp_path / "run"
    runtime.mkdir(0o700)
    url = Url.parse(f"local://?runtime={runtime}")
    async with LocalRegistry.from_url(url) as registry:
        assert registry.location == f"{runtime}/ketch/registry"
        assert stat.S_IMODE((runtime / "ketch").stat().st_mode) == 0o700
    async with LocalRegistry.from_url(Url.parse(f"local://{tmp_path}/named?runtime={runtime}")) as registry:
        assert registry.location == f"{tmp_path}/named"


@pytest.mark.parametrize("trouble", ["absent", "a file", "somebody else's"])
async def test_a_runtime_directory_that_is_not_the_users_is_left_alone(tmp_path, monkeypatch, trouble):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    runtime = tmp_path / "run"
    if trouble == "a file":
        runtime.write_text("")
        runtime /= "user"
    elif trouble == "somebody else's":
        if os.geteuid() != 0:
            pytest.skip("only root can make a directory somebody else's")
        runtime.mkdir(0o700)
        os.chown(runtime, 65534, -1)
    async with LocalRegistry.from_url(Url.parse(f"local://?runtime={runtime}")) as registry:
        assert registry.location == str(tmp_path / "tmp" / f"ketch-{os.geteuid()}" / "registry")
    assert not runtime.exists() or list(runtime.iterdir()) == []


async def test_what_is_no_record_is_passed_over_with_one_line_each(path, caplog):
    async with LocalRegistry(path) as registry:
        folder = registry._folder
        held = [
            folder.write("corrupt", b'{"service": '),
            folder.write("wrong type", b'{"service": "svc", "address": 5}'),
            folder.write("no text", b'{"service": "\xff", "address": "h:1"}'),
            folder.write("empty", b""),
            folder.write("oversized", encode(ONE) + b" " * MAX_RECORD),
        ]
        locked = {record.name for record in held}
        (path / "README").write_text("foreign")
        (path / "folder").mkdir()
        os.mkfifo(path / f"{'0' * 32}.json")
        (path / f"{'1' * 32}.json").mkdir()
        (path / f"{'2' * 32}.json").symlink_to("/dev/zero")
        before = set(path.iterdir())
        async with aclosing(registry.watch()) as snapshots:
            assert await anext(snapshots) == ()
            await registry.register(ONE)
            await until(snapshots, "one")
            await registry.register(TWO)
            await until(snapshots, "one", "two")
        assert before <= set(path.iterdir())
        passed = [line for line in caplog.messages if "passing over" in line]
        assert len(passed) == len(before) == len(locked) + 5
        for record in held:
            folder.remove(record)


async def test_a_directory_with_too_many_files_is_read_up_to_the_limit(path, caplog, monkeypatch):
    monkeypatch.setattr("ketch.registries.reader.MAX_FILES", 5)
    monkeypatch.setattr(folders, "MAX_FILES", 5)
    async with LocalRegistry(path) as registry:
        for number in range(10):
            await registry.register(Instance("svc", str(number), "h:1"))
        reader = Reader(Folder(path))
        assert [len(reader.look()) for _ in range(3)] == [5, 5, 5]
    assert [line for line in caplog.messages if "more than 5 files" in line] == caplog.messages
    assert len(caplog.messages) == 1


async def test_what_a_dead_process_left_behind_is_cleaned_up(path):
    with another_process(path, "one") as process:
        process.kill()
    assert len(list(path.iterdir())) == 1
    fresh, old = path / ".draft-fresh", path / ".draft-old"
    fresh.write_text("")
    old.write_text("")
    os.utime(old, (time.time() - 3600,) * 2)
    async with LocalRegistry(path) as registry, aclosing(registry.watch()) as snapshots:
        assert await anext(snapshots) == ()
        assert list(path.iterdir()) == [fresh]


async def test_running_out_of_open_files_makes_nobody_disappear(path):
    async with LocalRegistry(path) as registry:
        await registry.register(ONE)
        reader = Reader(Folder(path))
        assert reader.look() == [ONE]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.open("/", os.O_RDONLY)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            with pytest.raises(RegistryError, match="Too many open files"):
                reader.look()
            with pytest.raises(RegistryError, match="Too many open files"):
                await registry.register(TWO)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert reader.look() == [ONE]


async def test_a_close_that_is_cancelled_has_taken_the_records_away(path):
    registry = LocalRegistry(path)
    await registry.open()
    await registry.register(ONE)
    closing = asyncio.create_task(registry.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert list(path.glob("*")) == []


def open_files():
    return set(os.listdir("/dev/fd"))  # noqa: PTH208 - Path would keep the listing's own descriptor in the set


async def test_no_file_stays_open_after_close(path):
    async with LocalRegistry(path):  # a first one: libraries open what they need
        pass
    before = open_files()
    async with LocalRegistry(path) as registry, aclosing(registry.watch()) as snapshots:
        for _ in range(3):
            await registry.register(ONE)
        await registry.register(TWO)
        await until(snapshots, "one", "two")
    assert open_files() == before
