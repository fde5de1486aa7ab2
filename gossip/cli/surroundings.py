"""What is wrong already before any node runs? For `gossip doctor`.

The settings that a node started from this shell would have, the directory in which nodes of this host meet, and what
the kernel knows of nodes that meet elsewhere.

Invariant: nothing is made, and of a setting that is secret no more is told than that it is there.
Not here: what a node finds (`gossip.checkup`), and what that means (`diagnosis`).
"""

from __future__ import annotations

import logging
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from discovery import HostDirectory, clusters, meeting_places
from discovery.meeting import check_base
from gossip.checkup import room, seeds_of
from gossip.cli.diagnosis import Finding, full
from gossip.config import Config
from gossip.errors import ConfigError

ANY: Final = "any cluster"
"""Stands for a cluster where none is named: settings can be wrong in any."""
_KERNEL = Path("/proc/net/unix")
_SOCKET = re.compile(r"(/.*)/gossamesh/[a-z0-9-]+/[0-9a-f]{16}\.sock", re.ASCII)
_PREFIX = "GOSSAMESH_"


# -- settings ----------------------------------------------------------------------------------------------------------


def settings(cluster: str | None, file: str | None) -> tuple[list[Finding], Config | None]:
    """What there is to say of the environment and the TOML file, and what a node would make of them, if it could."""
    said: list[str] = []
    try:
        with _listening(said):
            config = Config.load(cluster or _cluster_in(file) or ANY, file)
    except ConfigError as error:
        whose = "the environment of this shell, or the file that is named there or here"
        wrong = Finding(
            "problem", "settings", str(error), whose, "correct it: a node started from here would not start"
        )
        return [wrong], None
    found = [
        Finding("warning", "settings", each, "whoever set it", "correct the name, or unset it: nobody reads it")
        for each in said
    ]
    found += _key_finding(config)
    found += _file_finding(file)
    found += _seeds_finding(config)
    found += _data_finding(config)
    if not found:
        given = sorted(name for name in os.environ if name.startswith(_PREFIX))
        found.append(Finding("ok", "settings", f"a node would start with them: {', '.join(given) or 'nothing is set'}"))
    return found, config


@contextmanager
def _listening(said: list[str]) -> Iterator[None]:
    """Keeps what is logged, in place of printing it."""

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log, keeper = logging.getLogger("gossip"), Keeper()
    log.addHandler(keeper)
    propagated, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(keeper)
        log.propagate = propagated


def _path_of(file: str | None) -> Path | None:
    named = file or os.environ.get(_PREFIX + "CONFIG")
    return Path(named) if named else None


def _cluster_in(file: str | None) -> str | None:
    """The first cluster that a TOML file has a table for; whether it can be read, `Config.load` says."""
    path = _path_of(file)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return None
    return next((name for name, value in content.items() if isinstance(value, dict) and name != "tags"), None)


def _key_finding(config: Config) -> list[Finding]:
    """A bind beyond loopback without a key is an error of its own; here is what is allowed, and no good."""
    if config.insecure and not config.key:
        what = "insecure is set, and there is no key: a node that binds beyond this host lets in whoever reaches it"
        return [
            Finding("warning", "settings", what, "whoever set it", "make a key: `gossip keygen`, and GOSSAMESH_KEY")
        ]
    return []


def _file_finding(file: str | None) -> list[Finding]:
    path = _path_of(file)
    if path is None or not path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return []
    if not re.search(r"^\s*\"?key\"?\s*=", path.read_text(encoding="utf-8"), re.MULTILINE):
        return []
    return [Finding("warning", "settings", f"{path} has a key in it, and others can read it", "the file's mode",
                    f"chmod 600 {path}")]  # fmt: skip


def _seeds_finding(config: Config) -> list[Finding]:
    try:
        seeds_of(config)
    except (OSError, ValueError) as error:
        what = f"the file of seeds can not be used: {error}"
        return [Finding("problem", "settings", what, "that file", "correct it; it is read anew every 15 s")]
    return []


def _data_finding(config: Config) -> list[Finding]:
    """Whether a node could keep something in its data directory."""
    if not config.data_dir:
        return []
    path = Path(config.data_dir)
    there = next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = f"nothing can be written to {there}, where data_dir={config.data_dir} is or would be"
        return [
            Finding(
                "problem", "settings", what, "the rights of that directory", f"chown or chmod {there}, or name another"
            )
        ]
    lack = full(str(there), room(str(there)))
    return [lack] if lack is not None else []


# -- where nodes meet --------------------------------------------------------------------------------------------------


class Look(NamedTuple):
    """What is in the directories where this user's nodes meet."""

    findings: list[Finding]
    living: dict[str, list[Path]]
    """The control sockets of living nodes, by the name of their cluster's directory; the oldest first."""
    ended: int
    """Nodes that ended without a goodbye, and whose files nobody had looked at since."""
    places: list[Path]


def look() -> Look:
    """Looks into all of them."""
    found = Look([], {}, 0, [])
    ended = 0
    try:
        found.places.extend(meeting_places())
        directories = clusters()
    except (OSError, ValueError) as error:
        step = "set GOSSAMESH_RUNTIME_DIR to a directory of your own, the same for all"
        return found._replace(
            findings=[Finding("problem", "directory", str(error), "the environment of this shell", step)]
        )
    for place in found.places:
        try:
            check_base(place)
        except FileNotFoundError:
            continue  # a node makes it
        except OSError as error:
            found.findings.append(_unsafe(place, error))
    parents = [place / "gossamesh" for place in found.places if os.path.lexists(place / "gossamesh")]
    for path in (*parents, *directories):
        try:
            locks = len(list(path.glob("*.lock")))
            controls = [Path(each.path) for each in HostDirectory(path).controls()]
        except (OSError, ValueError) as error:
            found.findings.append(_unsafe(path, error))
            continue
        if controls:
            found.living.setdefault(path.name, []).extend(controls)
        elif path not in parents:
            ended += locks
    return found._replace(ended=ended)


def _unsafe(path: Path, error: Exception) -> Finding:
    """A directory that is not ours alone. The error says what is to be done."""
    what = getattr(error, "strerror", None) or str(error)
    problem, _, remedy = what.rpartition(": ")
    return Finding(
        "problem", "directory", f"{path}: {problem or what}; no node meets another there",
        "whoever made or changed it: another user, or a umask", remedy or "remove it, or set GOSSAMESH_RUNTIME_DIR",
    )  # fmt: skip


class Elsewhere(NamedTuple):
    """Nodes of this user that listen on this host, by the directory below which they meet."""

    place: Path
    meet: int
    lost: int
    """Those whose files are gone: nobody can be sure whose they are."""


def listening(cluster: str | None) -> list[Elsewhere]:
    """What the kernel knows of nodes of this host, of one cluster or of any; nothing on a system that does not tell."""
    found: dict[Path, Elsewhere] = {}
    with suppress(OSError):
        lines = _KERNEL.read_text(encoding="utf-8", errors="replace").splitlines()
        # a socket has a line, and so has each connection that was accepted there
        for name in sorted({line.partition("/")[1] + line.partition("/")[2] for line in lines}):
            match = _SOCKET.fullmatch(name)
            if match is None:
                continue
            path, place = Path(match[0]), Path(match[1])
            _, meet, lost = found.get(place, Elsewhere(place, 0, 0))
            mine = _mine(path)
            asked = mine is True and (not cluster or path.parent in clusters(cluster, place))
            found[place] = Elsewhere(place, meet + asked, lost + (mine is None))
    return [found[place] for place in sorted(found)]


def _mine(path: Path) -> bool | None:
    """Whether a file is this user's; None if it is not there, where it could be seen."""
    try:
        return path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return None
    except OSError:
        return False


def nobody(cluster: str | None, others: list[str], seen: Look) -> Finding:
    """No node to be asked: why that may be, and what to do."""
    name = cluster or "shop"
    which = f" in the cluster {cluster!r}" if cluster else ""
    where = " or ".join(str(place / "gossamesh") for place in seen.places)
    found = [f"no node of yours runs on this host{which}; nodes meet in {where}"]
    step = f"start one: `gossip run -c {name}`, or a gossip.Node({name!r}) in a program"
    fault = "nobody started one"
    if others:
        found.append(f"there are nodes of {', '.join(others)}")
    if seen.ended:
        found.append(f"{seen.ended} ended without a goodbye: killed, or out of memory")
        fault = "what ended them: see their log, and dmesg"
    elsewhere = []
    for place, meet, lost in listening(cluster):
        if place in seen.places and lost:
            found.append(f"{lost} nodes that listen below {place} have lost their files there")
            fault, step = "somebody who clears up temporary files", "they make them anew within 15 s; then try again"
        elif place not in seen.places and meet:
            elsewhere.append(place)
            who = f"{meet} nodes of yours meet" if meet > 1 else "1 node of yours meets"
            found.append(f"{who} elsewhere, below {place}")
    if elsewhere:
        fault += "; or their environment and this shell's differ (XDG_RUNTIME_DIR, GOSSAMESH_RUNTIME_DIR)"
        which = f"GOSSAMESH_RUNTIME_DIR={elsewhere[0]} gossip doctor" + ("" if len(elsewhere) == 1 else ", and so on")
        step += f"; or look there: {which}"
    return Finding("problem", "nodes", "; ".join(found), fault, step)
