"""What is wrong, whose fault is it, and what is to be done next? For `gossip doctor`.

Each function is given what was found (by `gossip.checkup` in a node, or by the command itself) and gives findings; none
of them looks at anything. A *problem* keeps nodes from each other or data from the disk; a *warning* works, and will
not always; everything else is well.

Invariant: a finding that is not well names somebody and has a next step; what was not told counts as not known, so that
a node of another version can be asked.
Not here: settings and directories (`surroundings`), and how findings are shown (`doctor`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from discovery import parse_peer

Level: TypeAlias = Literal["ok", "warning", "problem"]
Told: TypeAlias = Mapping[str, Any]
_SLIGHT = 1.0
"""Seconds by which clocks may differ without a word: what expires does so a second earlier here than there."""
_SPARE = 64
"""Descriptors beside streams: listening sockets, the control socket's, SQLite's."""
_NEARLY = 0.9
"""Of the descriptors that a process may have."""
_LITTLE = 256 << 20
"""Bytes free on the disk of a data directory: four times what it grows by until it is compacted."""


class Finding(NamedTuple):
    """One thing that was looked at. `fault` says whose it is, and `step` what to do; both are empty if all is well."""

    level: Level
    check: str
    found: str
    fault: str = ""
    step: str = ""


class Patient(NamedTuple):
    """A node that was examined, with what it told of itself and what is known of those around it."""

    status: Told
    members: Sequence[Told]
    told: Told
    """What `gossip.checkup` found in the node."""
    neighbours: Sequence[Told]
    """How the nodes that meet in its directory greeted, itself included."""
    strangers: Mapping[str, str]
    """Who else of this host listens at which port."""

    @property
    def others(self) -> list[Told]:
        """The living members but itself."""
        return [member for member in self.members if not member["me"] and member["status"] in ("alive", "suspect")]

    def at(self, address: str) -> Told | None:
        """The living member that says it is at this address, whatever name is used for it."""
        where = {address, *self.told["resolved"].get(address, ())}
        return next((member for member in self.others if where & set(member["addresses"])), None)

    def stranger(self, address: str) -> str:
        """Who of this host, and no member, listens there; empty if that is nobody's."""
        here = address in self.told["here"]
        return self.strangers.get(address.rpartition(":")[2], "") if here else ""


def findings(patient: Patient) -> Iterator[Finding]:
    """All that there is to say of a node."""
    told, members = patient.told, patient.others
    yield from _advertised(patient)
    yield from _seeds(patient)
    yield from _members(patient)
    yield _neighbours(patient)
    yield from _clocks(members, told["max_clock_skew"])
    yield _datagrams(members)
    yield _versions(patient)
    yield _mdns(patient.status.get("mdns"))
    yield _place(told)
    yield _files(told["files"], told["max_connections"], len(members))
    yield from _disk(patient.status.get("storage"), told["room"])
    yield from _refused(patient.status["counters"])
    if told["insecure"] and not told["sealed"] and told["advertised"] and not _is_loopback(told["advertised"]):
        yield Finding(
            "warning",
            "key",
            f"it listens at {told['bind']} without a key: whoever reaches it reads and writes all",
            "insecure=True was said to it",
            "make a key with `gossip keygen` and give it to every node",
        )


# -- addresses ---------------------------------------------------------------------------------------------------------


def _advertised(patient: Patient) -> Iterator[Finding]:
    """Whether others can reach us where we say we are."""
    told, own = patient.told, patient.told["advertised"]
    if own is None:
        yield Finding("ok", "advertise", "no network port: it speaks to nodes of this host only (there is no bind)")
        return
    abroad = [seed for seed in told["seeds"] if not _is_loopback(seed)]
    abroad += [address for member in patient.others for address in _doors(member) if not _is_loopback(address)]
    knock, bind = told["knocks"].get(own, {}), told["bind"]
    answer, answered = knock.get("answer"), _answered(knock)
    if _is_loopback(own) and (abroad or not _is_loopback(bind)):
        why = f"it is bound to {bind}, which" if _is_loopback(bind) else "this host seems to have no route, so it"
        yield Finding(
            "problem",
            "advertise",
            f"it tells others that it is at {own}, where each of them finds but itself",
            f"this node: {why} can not be reached from other hosts",
            "bind='0.0.0.0:PORT', and advertise=HOST:PORT as the others reach this host (GOSSAMESH_ADVERTISE)",
        )
    elif answer == "open":
        elsewhere = "" if own in told["here"] else ", which is no address of this machine, and leads here"
        yield Finding("ok", "advertise", f"it can be reached at {own}{elsewhere}")
    elif own not in told["here"]:
        level: Level = (
            "warning" if answer in ("silent", "refused", "unreachable") and _meets_others(patient) else "problem"
        )
        yield Finding(
            level,
            "advertise",
            f"it tells others that it is at {own}, which is no address of this machine, and there {answered}",
            "this node's advertise; or the router that is to forward it does not do so from inside",
            "correct advertise (GOSSAMESH_ADVERTISE), or try from another host: nc -vz " + own.replace(":", " "),
        )
    else:
        yield Finding(
            "problem",
            "advertise",
            f"it tells others that it is at {own}, and there {answered}",
            f"this node's advertise: it listens at {bind}",
            "let advertise (GOSSAMESH_ADVERTISE) and bind lead to one place",
        )


def _meets_others(patient: Patient) -> bool:
    """Whether a living member is known that has a port: it was reached, and most likely reaches us."""
    return any(_doors(member) for member in patient.others)


def _seeds(patient: Patient) -> Iterator[Finding]:
    """What is at each address that this node was told to try."""
    told = patient.told
    seeds = [seed for seed in told["seeds"] if seed != told["advertised"]]
    good = [seed for seed in seeds if patient.at(seed)]
    for seed in seeds:
        if seed not in good:
            yield seed_finding(told["knocks"].get(seed), seed, patient.stranger(seed), told["sealed"], alone=False)
    if good:
        yield Finding("ok", "seeds", f"{len(good)} of {len(seeds)} are members: {', '.join(good)}")


def seed_finding(knock: Told | None, seed: str, stranger: str, sealed: bool, alone: bool) -> Finding:
    """What a knock says of a seed at which no member is known; `alone` if there is no node that could know any."""
    if knock is None:
        why = "name a few: one that lives is enough to find all others"
        return Finding("warning", "seeds", f"{seed} was not tried: there are too many", "the list of seeds", why)
    answer, what = knock["answer"], f"{seed}: {_answered(knock)}"
    if answer == "open" and alone:
        return Finding("ok", "seeds", what)
    if answer == "closed" and stranger:
        step = "give both the same cluster and key, or correct the address"
        return Finding("problem", "seeds", f"{what}. There is {stranger}", "the seed, or that node's settings", step)
    fault, step = _AT_A_SEED.get(answer, _NOTHING_COMES_BACK)
    words = {
        "seed": seed,
        "host": seed.rpartition(":")[0],
        "there": seed.replace(":", " "),
        "key": "another key than ours, or none" if sealed else "a key, where we have none",
    }
    level: Level = "warning" if answer == "open" else "problem"
    return Finding(level, "seeds", what, fault.format_map(words), step.format_map(words))


_AT_A_SEED = {
    "open": (
        "the node at {seed} advertises another address, which no member has; or it is a program that says nothing",
        "look what listens there; if it is a node: `gossip status` on that host, and its advertise",
    ),
    "closed": (
        "whoever listens there: a node with {key}; or of another cluster or version; or another program",
        "compare the cluster and the key (GOSSAMESH_KEY or --key-file; `gossip keyring list` shows fingerprints) on "
        "both sides, and look what listens there: ss -ltnp",
    ),
    "spoke": ("the address: another program listens there", "correct the seed: its port is that of the other's bind"),
    "refused": (
        "the node there: it does not run, or listens at another port",
        "start it, or correct the seed {seed} (ss -ltn on that host)",
    ),
    "unknown name": ("the name, or this host's resolver", "getent hosts {host}"),
}
_NOTHING_COMES_BACK = (
    "the way there: that host is down, or a firewall drops what we send",
    "from this host: nc -vz {there}; then open the port for TCP and UDP",
)


def _members(patient: Patient) -> Iterator[Finding]:
    """Whether a stream can be opened to each living member that has a port."""
    reached = 0
    for member in patient.others:
        here = any(address.startswith("unix:") for address in member["addresses"]) and member["instance"] in {
            each.get("instance") for each in patient.neighbours
        }
        for address in _doors(member):
            if _is_loopback(address) and not here and not _is_loopback(patient.told["bind"] or "127.0.0.1:1"):
                yield Finding(
                    "problem",
                    "members",
                    f"{member['name']} tells us that it is at {address}, which is ourselves",
                    f"{member['name']}: its bind or advertise is loopback, and it is not of this host",
                    "on its host: bind='0.0.0.0:PORT', and advertise as we reach that host",
                )
                continue
            knock = patient.told["knocks"].get(address)
            if knock is None or knock["answer"] == "open":
                reached += knock is not None
                continue
            yield _unreached(member, address, knock)
    living = len(patient.others)
    ports = f"streams to {reached} of their ports can be opened" if reached else "none has a port that was tried"
    yield Finding("ok", "members", f"{living} living beside this one; {ports}")


def _unreached(member: Told, address: str, knock: Told) -> Finding:
    name, answered = member["name"], _answered(knock)
    if knock["answer"] in ("closed", "spoke"):
        return Finding(
            "problem",
            "members",
            f"{name} tells us that it is at {address}, and there {answered}",
            f"{name}: another program, or a node of another cluster or key, has that address",
            f"correct the advertise of {name}, or have its port to itself",
        )
    udp = (
        "datagrams get through to it, and streams do not" if member.get("datagrams") else "no stream gets through to it"
    )
    return Finding(
        "problem",
        "members",
        f"{name} at {address}: {answered}; {udp}, so writes reach it by others, or late",
        f"a firewall on the way that does not let TCP through; or {name} advertises a wrong address",
        f"open the port of {address} for TCP as well as UDP, in both directions; nc -vz {address.replace(':', ' ')}",
    )


def _neighbours(patient: Patient) -> Finding:
    """Whether all that meet in one directory are members of each other."""
    known = {member["instance"]: member for member in patient.members}
    strange = [each for each in patient.neighbours if each["instance"] not in known]
    if not strange:
        count = len(patient.neighbours)
        several = f"{count} nodes of this cluster answer, and know each other"
        return Finding("ok", "this host", several if count > 1 else "1 node of this cluster answers")
    names = ", ".join(f"{each['name']} (pid {each['pid']})" for each in strange)
    told = [each.get("sealed") for each in strange]
    if False in told and patient.told["sealed"]:
        why, step = f"{names} has no key, and {patient.status['name']} has one", "give it the same key (GOSSAMESH_KEY)"
    elif True in told and not patient.told["sealed"]:
        why, step = f"{patient.status['name']} has no key, and {names} has one", "give it the same key (GOSSAMESH_KEY)"
    else:
        why, step = f"{names}: started just now, or with another key", "try again in a moment, then compare the keys"
    return Finding("problem", "this host", f"not members, though they meet in the same directory: {names}", why, step)


# -- clocks, datagrams, versions ---------------------------------------------------------------------------------------


def _clocks(members: Sequence[Told], allowed: float) -> Iterator[Finding]:
    """How far the others' clocks are from ours."""
    skews = [(float(member["skew"]), str(member["name"])) for member in members if member.get("skew") is not None]
    wrong = [(skew, name) for skew, name in skews if abs(skew) > _SLIGHT]
    ours = len(wrong) > 1 and 2 * len(wrong) > len(members) and len({skew > 0 for skew, _ in wrong}) == 1
    for skew, name in wrong:
        much = abs(skew) > allowed
        waits = f"{name}'s writes wait here" if skew > 0 else f"our writes wait at {name}"
        effect = (
            f"{waits}, since more than {allowed:g} s are not believed"
            if much
            else "what expires does so earlier or later there"
        )
        yield Finding(
            "problem" if much else "warning",
            "clocks",
            f"{name}'s clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this host's: {effect}",
            "this host's clock: most others differ from it alike"
            if ours
            else f"the clock of {name}'s host, or of this",
            "compare both with a third (date -u), then have NTP set them: timedatectl set-ntp true",
        )
    if not wrong:
        what = f"{len(skews)} of {len(members)} members compared; none differs by more than {_SLIGHT:g} s"
        yield Finding("ok", "clocks", what if members else "nobody to compare with")


def _datagrams(members: Sequence[Told]) -> Finding:
    """Whether UDP gets through, or streams have to do its work."""
    blocked = [str(member["name"]) for member in members if member.get("datagrams") is False]
    if not blocked:
        answered = sum(member.get("datagrams") is True for member in members)
        if not answered:
            return Finding("ok", "datagrams", "none are sent, or none was answered or missed yet")
        return Finding("ok", "datagrams", f"{answered} members answer them; none is known not to")
    return Finding(
        "warning",
        "datagrams",
        f"no datagram was answered lately, and streams are, by {', '.join(blocked)}",
        "a firewall between, which lets TCP through and not UDP",
        "open the port for UDP too, in both directions; until then a dead host is noticed later",
    )


def _versions(patient: Patient) -> Finding:
    """Whether all are of one version, as far as it is told."""
    told = Counter(each.get("version") or "of a version that did not tell" for each in patient.neighbours)
    told.update(str(member["version"]) for member in patient.others if member.get("version"))
    unknown = patient.status["counters"].get("unknown", 0)
    if len(told) < 2 and not unknown:
        return Finding("ok", "versions", f"{next(iter(told), 'not told')}, as far as members tell")
    mixed = ", ".join(f"{count} {version}" for version, count in sorted(told.items()))
    later = f"; {unknown} messages of a later version were passed over" if unknown else ""
    return Finding(
        "warning",
        "versions",
        f"mixed: {mixed}{later}",
        "whoever was not updated yet",
        "restart the older ones with the newer version, one after the other",
    )


def _mdns(told: Told | None) -> Finding:
    """Whether looking for others on this network by multicast works, where it is done."""
    if told is None:
        return Finding("ok", "mdns", "not in use")
    if told.get("failed"):
        return Finding(
            "warning",
            "mdns",
            f"nobody is looked for by multicast: {told['failed']}",
            "this host's network, or another program that has port 5353 to itself",
            "name a few seeds, which need no multicast; or free UDP port 5353",
        )
    return Finding("ok", "mdns", "others on this network are looked for")


# -- the host ----------------------------------------------------------------------------------------------------------


def _place(told: Told) -> Finding:
    """Whether the files by which others of this host find it are there."""
    if told["listed"]:
        return Finding("ok", "directory", f"its files are in {told['directory']}")
    return Finding(
        "problem",
        "directory",
        f"its files in {told['directory']} are gone: nobody new of this host finds it",
        "somebody who clears up temporary files",
        "it makes them anew within 15 s; keep the cleaner away from there, or set GOSSAMESH_RUNTIME_DIR for all",
    )


def _files(files: Told, connections: int, members: int) -> Finding:
    """Whether the process may open as many files as it may take streams."""
    limit, open_, wanted = files["limit"], files["open"], connections + 2 * members + _SPARE
    if open_ > _NEARLY * limit:
        return Finding(
            "problem",
            "open files",
            f"{open_} of {limit} are open: soon no stream and no file can be",
            "its limit, or its program, which closes none",
            "ulimit -n 4096 (LimitNOFILE=)",
        )
    if wanted <= limit:
        return Finding("ok", "open files", f"{open_} of {limit}")
    return Finding(
        "warning",
        "open files",
        f"{limit} may be open, and max_connections={connections} streams would need {wanted}",
        "the limit of this process",
        f"ulimit -n {max(4096, 2 * wanted)} (LimitNOFILE=), or a smaller max_connections",
    )


def _disk(storage: Told | None, room: Told | None) -> Iterator[Finding]:
    """Whether the data directory takes what it is given, and will."""
    if storage is None:
        yield Finding("ok", "disk", "no data_dir: what it holds lives as long as any node that has it")
        return
    where = storage["directory"]
    if storage["failed"]:
        yield Finding(
            "problem",
            "disk",
            f"{where} refused, and nothing is kept from then on: {storage['failed']}",
            "the disk, or the rights to it",
            "mend it (space, rights, hardware), then restart this node",
        )
    elif storage.get("dropped"):
        yield Finding(
            "warning",
            "disk",
            f"{where} is slower than what is written: {storage['dropped']} steps were "
            "dropped, and a whole state kept instead",
            "the disk",
            "a faster one, or fewer writes",
        )
    else:
        yield Finding("ok", "disk", f"{where} takes what it is given")
    lack = full(where, room)
    if lack is not None:
        yield lack


def full(where: str, room: Told | None) -> Finding | None:
    """Whether the disk of a directory has no room left, or little; None if it has, or is not known."""
    if room is None or room["free"] >= _LITTLE:
        return None
    return Finding(
        "problem" if room["free"] < _LITTLE // 16 else "warning",
        "disk",
        f"{room['free'] / (1 << 20):.0f} MiB are free at {where}",
        "whatever fills that disk",
        "make room: when it is full, nothing is kept",
    )


_MEANS = {
    "unsealed": (
        "packets came that this cluster's key does not open",
        "nodes with another key or none, or strangers on the network",
        "give all the same key (GOSSAMESH_KEY or --key-file; `gossip keyring list` on each host shows the "
        "fingerprint); let nobody else reach the port",
    ),
    "malformed": (
        "packets came that are none of this cluster",
        "nodes of another cluster or version, or with a key where this one has none; or strangers",
        "compare cluster, version and key of those that have this node among their seeds",
    ),
    "forged": (
        "claims came in the name of members that did not make them",
        "somebody who has the key, and is not what it says",
        "change the key (gossip keyring), and give the new one to nobody who should not have it",
    ),
    "impersonated": (
        "packets came in the name of another member than their sender",
        "somebody who has the key, and is not what it says",
        "change the key (gossip keyring), and give the new one to nobody who should not have it",
    ),
    "foreign_streams": (
        "streams were closed since what came by them was none of this cluster's",
        "nodes with another key, cluster or version; or another program that takes this for its own port",
        "look who connects (ss -tnp, on the other side); what came is counted as unsealed or malformed, too",
    ),
}


def _refused(counters: Told) -> Iterator[Finding]:
    """What was turned away since the node started, and what that means."""
    for name, (what, fault, step) in _MEANS.items():
        if counters.get(name):
            yield Finding("warning", "refused", f"{name}={counters[name]}: {what}, since it started", fault, step)
    if counters.get("diverged"):
        yield Finding(
            "problem",
            "refused",
            f"diverged={counters['diverged']}: equal contexts with unequal states; repaired",
            "gossamesh; or somebody with the key who forges writes",
            "please report it, with the log of both nodes",
        )
    if not any(counters.get(name) for name in (*_MEANS, "diverged")):
        yield Finding("ok", "refused", "nothing was turned away")


# -- words -------------------------------------------------------------------------------------------------------------


def _doors(member: Told) -> list[str]:
    return [address for address in member["addresses"] if not address.startswith("unix:")]


def _answered(knock: Told) -> str:
    """What came of a knock, as the end of a sentence."""
    said = knock.get("said", "")
    return {
        "open": "somebody listens, and takes what we say",
        "closed": "somebody hung up at once",
        "spoke": f"another program answers ({said})",
        "refused": f"nobody listens ({said})",
        "silent": "nothing comes back",
        "unreachable": f"there is no way ({said})",
        "unknown name": f"the name leads nowhere ({said})",
    }.get(str(knock.get("answer")), said or "nobody has looked")


def _is_loopback(address: str) -> bool:
    try:
        return parse_peer(address).is_loopback
    except ValueError:  # 0.0.0.0 and port 0 are for a bind
        return address.startswith(("127.", "[::1]", "localhost"))
