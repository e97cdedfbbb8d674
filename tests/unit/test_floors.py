"""A module of txharedis imports only from the floors below its own (docs/design.md).

The imports are read with `ast`: relative and absolute ones, those inside functions and under
TYPE_CHECKING too. A package such as `monitor` is one unit; its modules may import one another.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "txharedis"
ROOT = Path(__file__).resolve().parents[2] / PACKAGE

FLOORS = [
    floor.split()
    for floor in (
        "errors interfaces options topology events log tls values _version reads.lag "
        "pubsub.messages",
        "election losses commands _command_table replies rights scripts deadlines counter journal "
        "outlet observers downtime reads.choice dedicated.waits pubsub.resyncs",
        "protocol factory pending methods pipeline alarm pace crowd outcomes "
        "reads.scanning reads.own_writes dedicated.recording "
        "pubsub.channels pubsub.streams pubsub.places",
        "node lock gossip client delivery chronicle tally pubsub.subscriber pubsub.continuity",
        "group inspection dedicated.links reads.replicas reads.read pubsub.seat pubsub.handover",
        "campaign switchover orders traffic rehearsal "
        "reads.reading pubsub.seating pubsub.subscriptions dedicated.blocking "
        "dedicated.transaction dedicated.transactions dedicated.monitoring",
        "dispatch",
        "conductor",
        "failover",
        "monitor cli demo testing metrics tracing",
    )
]
FLOOR_OF = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}
PROGRAMS = len(FLOORS) - 1
# Packages whose modules stand on floors of their own; other packages are one unit each.
SPLIT = {unit.partition(".")[0] for unit in FLOOR_OF if "." in unit}
FLOOR_OF |= dict.fromkeys(SPLIT, 0)  # the packages themselves, which import nothing
# The façade, txharedis/__init__.py: it imports from anywhere, and no module imports it.
FACADE = "__init__"
FLOOR_OF[FACADE] = len(FLOORS)

# Imports inside one floor. Floor 0 is all plain values: anything there, but in no circle.
BESIDE = {
    ("commands", "_command_table"),
    ("pipeline", "methods"),
    ("pubsub.handover", "pubsub.seat"),
    ("dedicated.transactions", "dedicated.transaction"),
    ("pubsub.subscriptions", "pubsub.seating"),
    ("switchover", "campaign"),
    ("orders", "switchover"),
    ("cli", "demo"),
    ("cli", "monitor"),
    ("monitor", "metrics"),
    ("demo", "monitor"),
    ("demo", "testing"),
}
REACTOR = "twisted.internet.reactor"
# Where `reactor=None` becomes the global one, inside a function; the programs may fetch it too.
ITS_DEFAULT = "failover"


@dataclass(frozen=True)
class Import:
    """One imported name with its dots resolved: `txharedis.errors.NoMaster`."""

    target: str
    line: int
    in_function: bool


def read_imports(module: str, source: str, *, is_package: bool) -> Iterator[Import]:
    """Every import of `source`, the module called `module` (dotted), wherever it stands."""

    def base(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = module.split(".") + ([""] if is_package else [])
        kept = parents[: -node.level]
        return ".".join(kept + ([node.module] if node.module else []))

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield Import(f"{base(node)}.{name.name}", node.lineno, in_function)
        inner = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    yield from walk(ast.parse(source, module), False)


def unit_of(module: str) -> str:
    """`txharedis.monitor.page` -> `monitor`, `txharedis.reads.lag` -> `reads.lag`.

    The package itself, or a name of its -> `__init__`.
    """
    parts = module.split(".")
    if len(parts) > 2 and parts[1] in SPLIT:
        return ".".join(parts[1:3])
    return parts[1] if len(parts) > 1 else FACADE


def floor_faults(sources: Mapping[str, str]) -> list[str]:
    """What is wrong with the package whose files (path below txharedis/) hold these sources."""
    faults = []
    beside: dict[str, set[str]] = {}
    units = {Path(path).parts[0].removesuffix(".py") for path in sources}
    for path, source in sorted(sources.items()):
        parts = Path(path).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join((PACKAGE, *(parts[:-1] if is_package else parts)))
        unit = unit_of(module)
        floor = FLOOR_OF.get(unit)
        if floor is None:
            faults.append(f"{path}: no floor yet; put {unit!r} on one in tests/unit/test_floors.py")
            continue
        for found in read_imports(module, source, is_package=is_package):
            where = f"{path}:{found.line}"
            if f"{found.target}.".startswith(f"{REACTOR}."):
                if floor != PROGRAMS and unit != ITS_DEFAULT:
                    faults.append(f"{where}: the global reactor; take one as an argument")
                elif not found.in_function:
                    faults.append(f"{where}: the global reactor outside a function")
                continue
            if not f"{found.target}.".startswith(f"{PACKAGE}."):
                continue
            other = unit_of(found.target)
            if other not in units | FLOOR_OF.keys():
                other = FACADE  # `from txharedis import HAClient`: a name, not a module
            if other == unit or FLOOR_OF.get(other, -1) < floor:
                continue
            if FLOOR_OF[other] == floor and (floor == 0 or (unit, other) in BESIDE):
                beside.setdefault(unit, set()).add(other)
                continue
            faults.append(f"{where}: {unit} (floor {floor}) imports {other} ({FLOOR_OF[other]})")
    try:
        TopologicalSorter(beside).prepare()
    except CycleError as error:
        faults.append(f"a circle of imports: {' <- '.join(error.args[1])}")
    return list(dict.fromkeys(faults))


def test_every_module_imports_only_from_lower_floors() -> None:
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in ROOT.rglob("*.py")
    }
    assert sources, f"no modules under {ROOT}"
    faults = floor_faults(sources)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("pending.py", "from . import errors, options"),
        ("pending.py", "from .errors import NoMaster"),
        ("pending.py", "import txharedis.errors"),
        ("reads/read.py", "from .lag import Token\nfrom txharedis.reads.own_writes import Proof"),
        ("reads/__init__.py", ""),
        ("options.py", "from .topology import Address"),
        ("commands.py", "from ._command_table import TABLE"),
        ("monitor/status.py", "from ..failover import FailoverService\nfrom .page import render"),
        ("monitor/__init__.py", "from ..failover import FailoverService\nfrom .page import render"),
        ("__init__.py", "from .client import HAClient"),
        ("failover.py", "from twisted.internet import defer\nimport txredisapi"),
        ("cli.py", "def main():\n    from twisted.internet import reactor"),
    ],
)
def test_allowed(path: str, source: str) -> None:
    assert floor_faults({path: source}) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("pending.py", "from .node import Node", "imports node"),
        ("pending.py", "import txharedis.node as n", "imports node"),
        ("pending.py", "from txharedis import node", "imports node"),
        ("pending.py", "from .protocol import NodeProtocol", "imports protocol"),
        ("pending.py", "def f():\n    from . import node", "imports node"),
        (
            "pending.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .node import Node",
            "imports node",
        ),
        ("replies.py", "from .commands import Command", "imports commands"),
        ("_command_table.py", "from .commands import Command", "imports commands"),
        ("monitor/status.py", "from ..cli import main", "imports cli"),
        ("demo.py", "from .cli import main", "imports cli"),
        ("pending.py", "from .protocol import Clock, Timer", "imports protocol"),
        ("cli.py", "from . import __version__", "imports __init__"),
        ("cli.py", "import txharedis", "imports __init__"),
        ("cli.py", "from txharedis import *", "imports __init__"),
        ("reads/lag.py", "from .own_writes import Proof", "imports reads.own_writes"),
        ("node.py", "from txharedis.reads.reading import ReplicaReads", "imports reads.reading"),
        ("reads/__init__.py", "from .read import Read", "imports reads.read"),
        ("novelty.py", "", "no floor yet; put 'novelty' on one"),
        ("novelty/thing.py", "", "no floor yet; put 'novelty' on one"),
        ("node.py", "def f():\n    from twisted.internet import reactor", "global reactor"),
        ("node.py", "def f():\n    import twisted.internet.reactor", "global reactor"),
        ("__init__.py", "def f():\n    from twisted.internet import reactor", "global reactor"),
        ("cli.py", "from twisted.internet import reactor", "outside a function"),
        ("cli.py", "class C:\n    from twisted.internet import reactor", "outside a function"),
        ("cli.py", "from twisted.internet.reactor import callLater", "outside a function"),
    ],
)
def test_refused(path: str, source: str, fault: str) -> None:
    faults = floor_faults({path: source})
    assert len(faults) == 1
    assert fault in faults[0]


def test_circle_on_the_ground_floor_is_refused() -> None:
    faults = floor_faults(
        {"topology.py": "from .errors import X", "errors.py": "from .topology import Y"}
    )
    assert len(faults) == 1
    assert "a circle of imports" in faults[0]
