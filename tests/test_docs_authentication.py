"""What docs/authentication.md says of API keys is what happens: its commands run, its scopes are all that there are."""

import re
import shlex
from pathlib import Path

from schema.api_key_text import has_shape, read_name
from schema.principal import Scope
from tests import program

PAGE = (Path(__file__).parents[1] / "docs" / "authentication.md").read_text(encoding="utf-8")
KEYS = PAGE.partition("\n## API keys\n")[2].partition("\n## ")[0]
WIDTH = 120
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_the_commands_run(database_url: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", KEYS, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    assert [arguments[1] for arguments in commands] == ["create", "list", "list", "revoke"]
    made = ""
    for arguments in commands:
        given = [ID.sub(made, argument) for argument in arguments]
        done = program.run(tmp_path, *given, DATABASE_URL=database_url)
        assert done.returncode == 0, done
        if arguments[1] == "create":
            name = read_name(done.stdout.strip())
            assert name is not None
            made = str(name.id)
        else:
            assert made in done.stdout


def test_the_example_looks_like_a_key_and_opens_nothing() -> None:
    (key,) = re.findall(r"Bearer (fpk_\S+)", KEYS)
    assert has_shape(key)
    assert "opens-nothing" in key


def test_the_table_has_every_scope() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \|", KEYS, re.MULTILINE) == list(Scope)


def test_prose_is_no_wider_than_code() -> None:
    assert [line for line in KEYS.splitlines() if len(line) > WIDTH and not line.startswith("|")] == []
