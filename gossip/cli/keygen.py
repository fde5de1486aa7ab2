"""Where does a cluster's key come from?"""

from __future__ import annotations

import base64
import os
import secrets
import sys

import click

from gossip.cli.asking import as_json
from gossip.cli.printing import document, printable, refused, say
from gossip.keyring import KEY_BYTES, fingerprint


@click.command("keygen")
@click.argument("file", required=False, type=click.Path())
@as_json
def command(file: str | None, as_json: bool) -> None:
    """Make a key that seals what the nodes of a cluster say: 32 random bytes, as base64.

    Give the same key to every node: as a file with --key-file, or in GOSSAMESH_KEY. With FILE it is written there,
    readable for you alone; a file that exists is never overwritten. What is said then is the key's fingerprint, by
    which `gossip keyring` calls it.

    \b
    Example:
      gossip keygen shop.key
      gossip run -c shop --bind 0.0.0.0:7946 --key-file shop.key
      export GOSSAMESH_KEY="$(gossip keygen)"
    """
    made = secrets.token_bytes(KEY_BYTES)
    key, called = base64.urlsafe_b64encode(made).decode(), fingerprint(made)
    if file is None:
        say(document({"key": key}) if as_json else key)
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise refused(
            f"{file} exists, and a key that is in use would be lost: remove it, or give another name"
        ) from None
    except OSError as error:
        raise refused(f"{file} can not be written: {error.strerror}") from None
    with open(descriptor, "w") as output:
        os.fchmod(descriptor, 0o600)
        output.write(key + "\n")
    if as_json:
        say(document({"file": file, "fingerprint": called}))
    else:
        print(f"gossip: {printable(file)} has the key {called}", file=sys.stderr)
