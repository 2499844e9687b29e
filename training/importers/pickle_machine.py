"""The opcodes of pickles as a small machine that makes plain values and records: it imports nothing and calls nothing.

A machine of our own instead of a subclass of pickle.Unpickler, because only so every opcode, length and amount of
memory is checked before it is spent, and because no Python object of this process is ever within a file's reach. A file
that is refused is refused with CheckpointError, in time and memory that grow with its length alone.
"""

import pickletools
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dnnlib.errors import CheckpointError

MOST_OPCODES = 300_000  # EG3D has some 30,000, whatever its size
MOST_LONG = 16  # bytes of a whole number
MOST_GLOBAL = 200  # letters of a module, or of what it holds
MOST_ARGUMENTS = 16  # of a call
PROTOCOLS = range(2, 6)
KEYS = (str, int, type(None))  # what may be a key: hashing anything else can take for ever
FOREIGN = {*sys.stdlib_module_names, "__builtin__", "copy_reg"}  # none of their classes is a network's
NAMES = {ord(op.code): op.name for op in pickletools.opcodes}


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function. Nothing is looked up."""

    name: str


@dataclass(slots=True, eq=False)
class Recorded:
    """An object as the file describes it: its class by name, what it was made of, and what it then held."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[Any, Any] = field(default_factory=dict)
    state: dict[Any, Any] = field(default_factory=dict)
    source: str = ""  # text of the module that defines the class, where the file brings it; never run


@dataclass
class Budget:
    """What reading one file may still cost, its inner streams included."""

    memory: int  # bytes beyond those that lie in the file
    opcodes: int = MOST_OPCODES

    def spend(self, memory: int) -> None:
        self.memory -= memory
        if self.memory < 0:
            raise CheckpointError("it asks for more memory than its size can need")


class Machine:
    """Reads one pickle after the other from the same bytes.

    calls: what REDUCE may do, by the full name of the function: from the arguments to a value. persistent: the value of
    a persistent id; None refuses them.
    """

    def __init__(
        self, data: memoryview, budget: Budget, calls: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:  # fmt: skip
        self.data, self.budget, self.calls, self.persistent = data, budget, calls, persistent
        self.position = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The next value. Raises CheckpointError naming the opcode, global or length that is not taken."""
        self.stack, self.below, self.memo = [], [], {}
        while True:
            at, self.position = self.position, self.due(1)
            code = self.data[at]
            self.budget.opcodes -= 1
            if self.budget.opcodes < 0:
                raise CheckpointError(f"it has more than {MOST_OPCODES} opcodes")
            if code == ord("."):
                break
            step = STEPS.get(code)
            if step is None:
                raise CheckpointError(f"opcode {NAMES.get(code, hex(code))} at byte {at} has no place in such a file")
            try:
                step(self)
            except (LookupError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
                raise CheckpointError(f"opcode {NAMES[code]} at byte {at} cannot be right: {error}") from error
        if len(self.stack) != 1 or self.below:
            raise CheckpointError(f"opcode STOP at byte {at} leaves {len(self.stack)} values instead of one")
        return self.stack.pop()

    def take(self, count: int) -> memoryview:
        """The next bytes, uncopied."""
        start, self.position = self.position, self.due(count)
        return self.data[start : self.position]

    def due(self, count: int) -> int:
        """Where that many bytes end. Raises CheckpointError if the data end before."""
        end = self.position + count
        if end > len(self.data):
            raise CheckpointError(
                f"it was cut short: {count} bytes are due at byte {self.position} of {len(self.data)}"
            )
        return end

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def marked(self) -> list[Any]:
        """What lies above the last mark; takes both away."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def name(self, module: str, name: str) -> Global:
        """Raises CheckpointError for all that is neither a class of a network nor a function whose result is known."""
        if max(len(module), len(name)) > MOST_GLOBAL:
            raise CheckpointError(f"it names something by more than {MOST_GLOBAL} letters")
        full = f"{module}.{name}"
        if full not in self.calls:
            plain = name.isidentifier() and all(part.isidentifier() for part in module.split("."))
            if not plain or not name.lstrip("_")[:1].isupper() or module.partition(".")[0] in FOREIGN:
                raise CheckpointError(f"it names {full!r}, which belongs to no network")
        return Global(full)

    def call(self, function: Any, args: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise TypeError(f"a {type(function).__name__} cannot be called")
        if function.name not in self.calls or len(args) > MOST_ARGUMENTS:
            raise CheckpointError(f"it asks to call {function.name} with {len(args)} arguments")
        return self.calls[function.name](*args)

    def record(self, cls: Any, args: Any, kwargs: Any = None) -> Any:
        """An object of a class, unmade. A dictionary of attributes is made a dictionary."""
        if not isinstance(cls, Global) or not isinstance(args, tuple):
            raise TypeError(f"a {type(cls).__name__} is no class")
        if cls.name.rpartition(".")[2] == "EasyDict":
            return {}
        return self.call(cls, args) if cls.name in self.calls else Recorded(cls.name, args, kwargs or {})


def _key(value: Any) -> Any:
    if not isinstance(value, KEYS) or (isinstance(value, int) and abs(value) >= 2**31):
        raise TypeError(f"a {type(value).__name__} is no key")
    return value


def _get(machine: Machine, form: str) -> None:
    machine.stack.append(machine.memo[machine.number(form)])


def _put(machine: Machine, form: str) -> None:
    machine.memo[machine.number(form)] = machine.stack[-1]


def _memoize(machine: Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _value(machine: Machine, made: Callable[[], Any]) -> None:
    machine.stack.append(made())


def _number(machine: Machine, form: str) -> None:
    machine.stack.append(machine.number(form))


def _long(machine: Machine, form: str) -> None:
    count = machine.number(form)
    if not 0 <= count <= MOST_LONG:
        raise ValueError(f"a whole number of {count} bytes")
    machine.stack.append(int.from_bytes(machine.take(count), "little", signed=True))


def _text(machine: Machine, form: str) -> None:
    machine.stack.append(str(machine.take(machine.number(form)), "utf-8", "surrogatepass"))


def _bytes(machine: Machine, form: str) -> None:
    machine.stack.append(machine.take(machine.number(form)))


def _tuple(machine: Machine, count: int) -> None:
    items = [machine.stack.pop() for _ in range(count)]
    machine.stack.append(tuple(reversed(items)))


def _marked_tuple(machine: Machine) -> None:
    items = machine.marked()
    machine.stack.append(tuple(items))


def _mark(machine: Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _append(machine: Machine, several: bool) -> None:
    items = machine.marked() if several else [machine.stack.pop()]
    _of(machine.stack[-1], list).extend(items)


def _set_items(machine: Machine, several: bool) -> None:
    items = machine.marked() if several else [machine.stack.pop() for _ in range(2)][::-1]
    target = _of(machine.stack[-1], dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_key(key)] = value


def _add_items(machine: Machine) -> None:
    items = machine.marked()
    _of(machine.stack[-1], set).update(map(_key, items))


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} is no {kind.__name__}")
    return value


def _line(machine: Machine) -> str:
    rest = machine.data[machine.position : machine.position + 1000].tobytes()
    line, end, _ = rest.partition(b"\n")
    if not end:
        raise ValueError("a name has no end")
    machine.position += len(line) + 1
    return line.decode("utf-8")


def _global(machine: Machine, stacked: bool) -> None:
    if stacked:
        name, module = machine.stack.pop(), machine.stack.pop()
    else:
        module, name = _line(machine), _line(machine)
    machine.stack.append(machine.name(_of(module, str), _of(name, str)))


def _reduce(machine: Machine) -> None:
    args, function = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(function, args))


def _new(machine: Machine, keywords: bool) -> None:
    kwargs = _of(machine.stack.pop(), dict) if keywords else None
    args, cls = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.record(cls, args, kwargs))


def _build(machine: Machine) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, Recorded):
        state = state if isinstance(state, dict) else {"state": state}
        target.state = state
    elif not isinstance(target, dict):  # an attribute of a dictionary is nothing that we want
        raise TypeError(f"a {type(target).__name__} has no state")


def _persistent(machine: Machine) -> None:
    if machine.persistent is None:
        raise CheckpointError("opcode BINPERSID refers to something outside of the file")
    machine.stack.append(machine.persistent(machine.stack.pop()))


def _protocol(machine: Machine) -> None:
    if (version := machine.number("<B")) not in PROTOCOLS:
        raise ValueError(f"protocol {version} is not read")


def _frame(machine: Machine) -> None:
    machine.due(machine.number("<Q"))


STEPS: dict[int, Callable[[Machine], None]] = {
    ord(code): step
    for code, step in {
        "\x80": _protocol, "\x95": _frame, "(": _mark, "t": _marked_tuple, "\x94": _memoize, "R": _reduce, "b": _build,
        "Q": _persistent, "\x90": _add_items, "c": partial(_global, stacked=False),
        "\x93": partial(_global, stacked=True), "\x81": partial(_new, keywords=False),
        "\x92": partial(_new, keywords=True),
        **{code: partial(_value, made=made) for code, made in {
            "N": lambda: None, "\x88": lambda: True, "\x89": lambda: False, "]": list, "}": dict, ")": tuple,
            "\x8f": set}.items()},
        **{code: partial(_number, form=form) for code, form in {"K": "<B", "M": "<H", "J": "<i", "G": ">d"}.items()},
        **{code: partial(_long, form=form) for code, form in {"\x8a": "<B", "\x8b": "<i"}.items()},
        **{code: partial(_text, form=form) for code, form in {"\x8c": "<B", "X": "<I", "\x8d": "<Q"}.items()},
        **{code: partial(_bytes, form=form) for code, form in {"C": "<B", "B": "<I", "\x8e": "<Q"}.items()},
        **{code: partial(_get, form=form) for code, form in {"h": "<B", "j": "<I"}.items()},
        **{code: partial(_put, form=form) for code, form in {"q": "<B", "r": "<I"}.items()},
        **{code: partial(_tuple, count=count) for code, count in {"\x85": 1, "\x86": 2, "\x87": 3}.items()},
        **{code: partial(_append, several=several) for code, several in {"a": False, "e": True}.items()},
        **{code: partial(_set_items, several=several) for code, several in {"s": False, "u": True}.items()},
    }.items()
}  # fmt: skip
