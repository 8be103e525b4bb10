"""Profiles: what to start, where and how, in YAML files that a user, a group or a site can keep.

::

    mpi.yaml ──extends──▶ local.yaml ──▶ the defaults of the keys below
        └─────────── load("mpi", {"n": 8}) ──▶ Profile, with where each value came from

The keys are the fields of :class:`Profile`: a key's type, default and meaning are there and nowhere
else (docs/reference/profiles.md is made from them).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcremote import files, quantities
from hpcremote.errors import ProfileError
from hpcremote.settings import NULLS, OVERRIDE, Entry, Key, canonical, convert, entries, inner, named

if TYPE_CHECKING:
    from hpcremote.files import Traversable
    from hpcremote.settings import Duration, Memory

_FOLDER = "profiles"
#: Keys that a job of the controller's own has as well.
_OF_JOBS = (
    *("walltime", "memory", "threads_per_rank", "queue", "account", "qos", "constraint", "reservation"),
    *("parallel_environment", "job_name", "setup", "directives"),
)
#: Of these, the ones that are the engines' where it is not said.
_ALIKE = ("account", "setup")


def _key(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: int | None = None,
    also: tuple[str, ...] = (),
    holds: tuple[str, ...] = (),
) -> Any:
    limits = {"choices": choices, "least": least, "most": most}
    metadata = {"doc": doc, "unit": unit, **limits, "also": also, "holds": holds}
    if default is dict:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Profile:
    """A profile, resolved: every key has a value, of the right type.

    Attributes:
        name: its file's name without ``.yaml``.
        sources: where each value came from (``/path/mpi.yaml:7``, ``default``, ``override``).
    """

    name: str
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    description: str = _key("", "One line for `hpcremote profile list`.")
    launcher: str = _key("local", "How engines start: the name of a file in launchers/.")
    n: int | None = _key(
        None,
        "How many engines; unset: slots of `hosts`, `nodes` x `ranks_per_node`, or one a core, at most 4.",
        unit="engines",
        least=1,
        also=("ranks",),
    )
    mpi: str = _key(
        "auto",
        "Which MPI's mpiexec it is; auto: find out, and compare it with mpi4py's library.",
        choices=("auto", "mpich", "openmpi", "intel"),
    )
    mpiexec: str = _key("", "The mpiexec command; unset: beside the Python interpreter, then on PATH.")
    mpiexec_args: tuple[str, ...] = _key((), "More arguments for mpiexec or srun, as a list.")
    hosts: tuple[str, ...] = _key(
        (),
        "Hosts that engines start on by ssh, with their slots, as in [node1, node2:4]; unset: this machine.",
    )
    ssh: str = _key("", "The ssh command for hosts; unset: $HPCREMOTE_SSH, or ssh.")
    ssh_args: tuple[str, ...] = _key((), "More arguments for ssh, as a list.")
    srun_mpi: str = _key(
        "", "Which `--mpi` srun is given; unset: pmi2 for MPICH and Intel MPI, pmix for Open MPI."
    )
    max_ranks_per_core: int = _key(
        32,
        "More engines than this for each core of this machine are refused, because they would bring it to a "
        "standstill; not asked in a batch job, nor with mpiexec_args, which may name other hosts.",
        least=1,
    )
    python: str = _key("", "The engines' Python interpreter; unset: the one that starts the cluster.")
    environment: dict[str, str] = _key(dict, "More environment variables for the engines.")  # noqa: RUF009
    working_dir: str = _key("", "Folder that engines start in; unset: where the cluster is started.")
    interface: str = _key(
        "auto",
        "Where the controller listens for other machines: auto, all, an interface (ib0), or an address.",
    )
    port: int = _key(0, "The controller's TCP port; 0: any free one.", least=0, most=65535)
    ipc: bool = _key(True, "Whether clients and engines on the controller's machine use a Unix socket.")
    shm: bool = _key(True, "Whether they pass large data by shared memory.")
    start_timeout: float = _key(60.0, "How long engines may take to register.", unit="seconds", least=1)
    stop_timeout: float = _key(
        10.0, "How long engines may take to end before they are killed.", unit="seconds", least=0
    )
    controller_timeout: float = _key(
        30.0, "How long engines live on when their controller is gone.", unit="seconds", least=0
    )
    collective_grace: float = _key(
        2.0,
        "When a call has failed on one engine: how long others may go on waiting for it in MPI.",
        unit="seconds",
        least=0,
    )
    watchdog: float = _key(
        0.0,
        "A call that runs longer on an engine is reported to its client with stacks; 0: never.",
        unit="seconds",
        least=0,
    )
    walltime_warning: float = _key(
        120.0,
        "How long before the end of their job engines run what they have for it (`hpcremote.on_walltime`).",
        unit="seconds",
        least=0,
    )
    save_on_walltime: str = _key(
        "", "Folder, or file's name with {rank} in it, to which engines save their namespaces then."
    )
    comm_world: bool = _key(
        True,
        "Whether the name MPI.COMM_WORLD inside engines is a duplicate whose waiting can be ended.",
    )
    relay: str = _key(
        "auto",
        "Whether ranks share their node agent's connection to the controller; auto: where that is elsewhere.",
        choices=("auto", "always", "never"),
    )
    keepalive: float = _key(
        10.0,
        "Silence on a TCP connection after which its other end is asked; 0: never.",
        unit="seconds",
        least=0,
    )
    output_limit: int = _key(
        10_000_000,
        "How much of what a call prints on one engine is kept in its result.",
        unit="bytes",
        least=0,
    )
    log_level: str = _key(
        "info",
        "What controller and engines write to their logs.",
        choices=("debug", "info", "warning", "error"),
    )

    scheduler: str = _key(
        "", "The batch system that engines are queued in: the name of a file in launchers/; unset: none."
    )
    controller: str = _key(
        "here",
        "Where the controller runs: here, in the engines' job on its first node, or in a job of its own.",
        choices=("here", "job", "own-job"),
    )
    controller_job: dict[str, Any] = _key(  # noqa: RUF009
        dict,
        "What a job of the controller's own asks for, by the keys of jobs, as in {queue: service}; account "
        "and setup are the engines' if they are not said.",
        holds=_OF_JOBS,
    )
    nodes: int | None = _key(None, "How many nodes.", unit="nodes", least=1)
    ranks_per_node: int | None = _key(None, "How many engines a node.", unit="engines", least=1)
    threads_per_rank: int | None = _key(None, "How many cores each engine has.", unit="cores", least=1)
    gpus_per_node: int | None = _key(None, "How many GPUs a node.", least=1)
    memory: Memory | None = _key(None, "How much memory a node.")  # noqa: RUF009
    walltime: Duration | None = _key(  # noqa: RUF009
        None, "How long the job may run: H:MM:SS, 90min; a bare number is minutes."
    )
    queue: str = _key("", "The queue or partition.", also=("partition",))
    account: str = _key("", "The account or project that is charged.", also=("project",))
    qos: str = _key("", "The quality of service.")
    constraint: str = _key("", "Which kind of nodes, in the scheduler's own terms.")
    reservation: str = _key("", "The reservation to run in.")
    parallel_environment: str = _key(
        "", "Grid Engine: the parallel environment, which spreads ranks over nodes; unset: mpi."
    )
    job_name: str = _key("", "The job's name; unset: hpcremote.")
    setup: tuple[str, ...] = _key(
        (), "Lines of shell that the job runs first, as a list: module loads, variables."
    )
    directives: tuple[str, ...] = _key(
        (), "More options for the scheduler, a line each, put into the script as they are."
    )

    @property
    def engines(self) -> int:
        """How many engines to start; ``n``, or what nodes or hosts take, or one a core and at most 4."""
        if self.n is None and self.hosts:
            slots = [entry.partition(":")[2] for entry in self.hosts]
            return sum(int(count) if count.isdigit() else 1 for count in slots)
        if self.n is None and self.nodes and self.scheduler:
            return self.nodes * (self.ranks_per_node or 1)
        return self.n or self.ranks_per_node or min(4, len(os.sched_getaffinity(0)))

    def named(self, key: str) -> str:
        """Return a key as errors begin with it: after the file and line where it is set."""
        return named(key, self.sources.get(key, f"profile {self.name}"))

    def of_controller(self) -> Profile:
        """Return the profile of the controller's own job: one process on one node."""
        known = keys()
        asked: dict[str, Any] = {
            key.name: key.default for key in known if key.name in _OF_JOBS and key.name not in _ALIKE
        }
        asked |= {"nodes": 1, "ranks_per_node": None, "n": 1, "gpus_per_node": None}
        asked["job_name"] = f"{self.job_name or 'hpcremote'}-controller"
        where = inner(self.sources.get("controller_job", OVERRIDE), "controller_job")
        sources = {**self.sources, **dict.fromkeys(self.controller_job, where)}
        for key, value in self.controller_job.items():
            asked[key] = convert(Entry(key, value, where), known)
        return dataclasses.replace(self, **asked, sources=sources)

    def to_yaml(self) -> str:
        """Return it as a profile file that says where each value came from."""
        lines = []
        for key in keys():
            value = getattr(self, key.name)
            text = f"{key.name}: {dump(value, key.kind)}" if value not in (None, "") else f"# {key.name}:"
            lines.append(f"{text:<40} # {self.sources.get(key.name, 'default')}")
        return "\n".join(lines) + "\n"


def keys() -> list[Key]:
    """Return every key that a profile can have (besides ``extends``)."""
    found = []
    for field in dataclasses.fields(Profile):
        if field.metadata:
            default = {} if field.default is dataclasses.MISSING else field.default
            found.append(Key(field.name, str(field.type), default, **field.metadata))
    return found


class Listed(NamedTuple):
    """A profile that can be asked for by name; a file that is wrong has its error as description."""

    name: str
    path: str
    description: str


def names() -> list[Listed]:
    """Return every profile on the search path."""
    listed = []
    for name, file in files.available(_FOLDER).items():
        try:
            description = load(name).description
        except ProfileError as error:
            description = f"(error) {error}"
        listed.append(Listed(name, str(file), description))
    return listed


def load(name_or_path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Profile:
    """Return the profile of that name, or in that file, with *overrides* on top.

    An override of None counts as not given.

    Raises:
        ProfileError: there is no such profile, or a key or value is wrong.
    """
    name = os.fspath(name_or_path)
    if "/" in name or name.endswith((".yaml", ".yml")):
        file: Traversable = Path(name).expanduser()
        name = Path(name).stem
        if not file.is_file():
            there = file.is_dir()
            raise ProfileError(
                f"{file} is a folder, and no profile" if there else f"there is no profile file {file}"
            )
    else:
        file = _search(name)
    known = keys()
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    given = [Entry(key, value, OVERRIDE) for key, value in (overrides or {}).items() if value is not None]
    for entry in [*_chain(file), *given]:
        value = convert(entry, known)
        _merge(values, sources, canonical(entry.key, known), value, entry.where)
    return Profile(name=name, sources=sources, **values)


# ---------------------------------------------------------------- files


def _search(name: str) -> Traversable:
    found = files.find_all(_FOLDER, name)
    if not found:
        known = list(files.available(_FOLDER))
        near = files.did_you_mean(name, known) or f"; there are: {', '.join(known)}"
        folders = ", ".join(str(folder) for folder in files.search_path(_FOLDER))
        raise ProfileError(f"there is no profile {name!r}{near} (looked in {folders})")
    return found[0]


def _chain(file: Traversable) -> list[Entry]:
    """Return the entries of *file* and of what it extends, those of the farthest ancestor first."""
    chain: list[Entry] = []
    seen = [str(file)]
    parent: Traversable | None = file
    while parent is not None:
        file, parent = parent, None
        own = list(entries(file))
        for entry in own:
            if entry.key == "extends" and entry.value is not None:
                parent = _parent(file, entry, seen)
        chain = [entry for entry in own if entry.key != "extends"] + chain
    return chain


def _parent(file: Traversable, entry: Entry, seen: list[str]) -> Traversable:
    """Return the file that *file* extends. ``mpi.yaml`` may extend the ``mpi`` that it hides."""
    name = entry.value
    if not isinstance(name, str):
        raise ProfileError(f"{entry.where}: key 'extends' has to be one name")
    if "/" in name:
        path = Path(str(file)).parent / name
        found: list[Traversable] = [path] if path.is_file() else []
    else:
        found = files.find_all(_FOLDER, name)
    if not found:
        near = files.did_you_mean(name, files.available(_FOLDER))
        raise ProfileError(f"{entry.where}: key 'extends': there is no profile {name!r}{near}")
    for candidate in found:
        if str(candidate) not in seen:
            seen.append(str(candidate))
            return candidate
    circle = " → ".join([*(Path(one).stem for one in seen), name])
    raise ProfileError(f"{entry.where}: key 'extends' goes in a circle: {circle}")


def _merge(values: dict[str, Any], sources: dict[str, str], key: str, value: Any, where: str) -> None:
    if value is None:
        return
    old = values.get(key)
    values[key] = {**old, **value} if isinstance(old, dict) else value
    sources[key] = where


def dump(value: Any, kind: str = "") -> str:
    """Return *value*, of a key of that *kind*, as this module reads it back."""
    if kind.startswith("Duration"):
        return quantities.clock(value)
    if kind.startswith("Memory"):
        return f"{value}M"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value).removesuffix(".0")
    plain = isinstance(value, str) and re.fullmatch(r"[\w/.]([\w/. -]*\w)?", value)
    if plain and value.lower() not in NULLS:
        return str(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False).replace(
        "$", "$$"
    )
