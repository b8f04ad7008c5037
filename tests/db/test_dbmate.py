import shutil
import ssl
import subprocess
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from db import dbmate, embedded, migrate
from tests.db.migrating import INDEX, NOTES, NOTES_INDEX, TABLE, Relay, empty_database, fill, rows, superuser

Folder = Callable[..., Path]


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with empty_database(postgres) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = tmp_path / "migrations"
    made.mkdir()
    return partial(fill, made)


# How the database is reached


def test_a_unix_socket_may_be_named_percent_encoded_or_not(url: str, folder: Folder) -> None:
    parts = conninfo_to_dict(url)
    plain = f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}&port={parts['port']}"
    assert migrate.up(plain, migrations=folder(TABLE)) == [NOTES]
    encoded = plain.replace("/", "%2F").replace("postgresql:%2F%2F", "postgresql://").replace("@%2F", "@/")
    assert migrate.up(encoded, migrations=folder(INDEX)) == [NOTES_INDEX]


def test_a_server_without_tls_needs_no_sslmode(url: str, folder: Folder) -> None:
    with Relay(url) as relay:
        assert migrate.up(relay.url(), migrations=folder(TABLE)) == [NOTES]
        assert migrate.up(relay.url(sslmode="allow"), migrations=folder(INDEX)) == [NOTES_INDEX]


def test_a_server_with_tls_needs_no_sslmode(url: str, folder: Folder, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate é.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [openssl, "req", "-new", "-x509", "-nodes", *subject, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with Relay(url, tls) as relay:
        assert migrate.up(relay.url(), migrations=folder(TABLE)) == [NOTES]
        strict = relay.url(sslmode="verify-full", sslrootcert=str(certificate))
        assert migrate.up(strict, migrations=folder(INDEX)) == [NOTES_INDEX]
    embedded_folder = embedded.binaries()
    assert embedded_folder in {program.parent for program in dbmate.pg_dumps(encrypted=False)}
    assert embedded_folder not in {program.parent for program in dbmate.pg_dumps(encrypted=True)}


def test_parameters_that_only_libpq_knows_are_no_obstacle(url: str, folder: Folder) -> None:
    extra = "channel_binding=prefer&gssencmode=disable&keepalives=1&keepalives_idle=30&target_session_attrs=any"
    more = "application_name=x%20y&connect_timeout=30&sslmode=prefer&options=-c%20search_path%3Dother%2Cpublic"
    with superuser(url) as connection:
        connection.execute("create schema other")
    full = f"{url}&{extra}&{more}"
    assert migrate.up(full, migrations=folder(TABLE)) == [NOTES]
    assert migrate.pending(full, migrations=folder()) == 0
    assert rows(url, "select to_regclass('other.notes') is not null") == [(True,)]


def test_of_several_hosts_the_one_that_answers_is_migrated(url: str, folder: Folder) -> None:
    parts = conninfo_to_dict(url)
    with Relay(url) as relay:
        several = f"postgresql://{parts['user']}@127.0.0.1:1,127.0.0.1:{relay.port}/{parts['dbname']}"
        assert migrate.up(several, migrations=folder(TABLE)) == [NOTES]


def test_a_password_is_given_by_the_environment_and_never_by_an_argument(
    url: str, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "p@ss/w:rd%?#&é '\"$"
    told = tmp_path / "told"
    program = tmp_path / "dbmate"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$DATABASE_URL" "$@" >"{told}"\nprintf %s "$PGPASSWORD" >"{told}.2"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(dbmate, "_program", lambda: str(program))
    migrate.up(url.replace("@", f":{quote(password, safe='')}@"), migrations=folder(TABLE))
    assert Path(f"{told}.2").read_text() == password
    assert "ss/w" not in told.read_text()
    assert "ss%2Fw" not in told.read_text()


def test_names_with_special_characters_are_found(postgres: str, folder: Folder) -> None:
    with empty_database(postgres, f'o/d?d #é"{uuid.uuid4().hex}') as url:
        assert migrate.up(url, migrations=folder(TABLE)) == [NOTES]
