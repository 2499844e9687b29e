"""Nothing in any pickle is run, imported or trusted, and none takes long or much memory to be refused."""

import os
import pickle
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnnlib.errors import CheckpointError
from tests.importers.published_files import Module, known_modules, network
from training.importers import pickle_machine
from training.importers.nvlabs_pickle import read_networks
from training.importers.pickle_tensors import MAGIC

PERSISTENT = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"


def refused(path: Path, data: bytes, naming: str) -> None:
    """Reading the bytes raises one sentence that holds `naming`, soon, and takes little memory.

    Soon, although the tests' type checker makes the machine ten times slower.
    """
    path.write_bytes(data)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError, match=naming) as told:
        read_networks(path)
    assert time.process_time() - start < 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 200
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(str(path))


class Payload:
    """Something that a loader would call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


HOSTILE: dict[str, tuple[Callable[[str], Any], str]] = {
    "system": (lambda mark: Payload(os.system, f"touch {mark}"), r"(posix|nt)\.system"),
    "eval": (lambda mark: Payload(eval, f"open({mark!r}, 'w')"), r"builtins\.eval"),
    "exec": (lambda mark: Payload(exec, f"open({mark!r}, 'w')"), r"builtins\.exec"),
    "open": (lambda mark: Payload(open, mark, "w"), r"\w+\.open"),
    "getattr": (lambda mark: Payload(getattr, Payload(__import__, "os"), "system"), r"builtins\.getattr"),
    "import": (lambda mark: Payload(__import__, "antigravity"), r"builtins\.__import__"),
    "nested": (lambda mark: [{"a": (Payload(os.mkdir, mark),)}], r"(posix|nt)\.mkdir"),
    "torch.load": (lambda mark: Payload(torch.load, mark), r"torch\.serialization\.load"),
    "numpy": (lambda mark: Payload(np.fromfile, mark), r"numpy\.\S*fromfile"),
    "path": (lambda mark: Path(mark), r"pathlib"),
    "method": (lambda mark: Payload("x".join, ["a"]), r"builtins\.getattr"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_called(name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make, naming = HOSTILE[name]
    mark = tmp_path / "ran"
    known_modules(monkeypatch)
    good = network("Generator", {"w_avg": torch.ones(3)}, {})
    for place in ("top", "attribute", "kwargs", "state"):
        data: Any = {"G": good, "more": make(str(mark))}
        if place == "attribute":
            data = {"G": network("Generator", {}, {}, {"a": make(str(mark))})}
        elif place == "kwargs":
            data = {"G": network("Generator", {}, {"a": make(str(mark))})}
        elif place == "state":
            data = {"G": Payload(pickle.loads, pickle.dumps(make(str(mark))))}
        told = r"pickle\.loads" if place == "state" else naming
        text = pickle.dumps(data, protocol=protocol).replace(b"__builtin__", b"builtins")
        refused(tmp_path / "x.pkl", text, told)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("code", "naming"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", "'os.system'"),
        (b"csubprocess\nPopen\n)\x81.", "'subprocess.Popen'"),
        (b"cbuiltins\ngetattr\n.", "'builtins.getattr'"),
        (b"\x8c\x02os\x8c\x0bpath.exists\x93.", "'os.path.exists'"),
        (b"\x8c\x09models.x\n\x8c\x03Net\x93.", "which belongs to no network"),
        (b"cmodels.net\nGenerator\n)R.", "asks to call models.net.Generator"),
        (b"cmodels.net\nGenerator\n)\x81)R.", "a Recorded cannot be called"),
        (b"cmodels.net\nGenerator\n)\x81}\x86R.", "REDUCE"),
        (b"cmodels.net\nGenerator\n)\x81K\x01R.", "REDUCE"),
        (b"cmodels.net\ngenerator\n.", "'models.net.generator'"),
        (b"(ios\nsystem\n.", "opcode INST"),
        (b"(cos\nsystem\no.", "'os.system'"),
        (b"(cmodels.net\nGenerator\no.", "opcode OBJ"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"\x83\x01\x00.", "opcode EXT2"),
        (b"\x84\x01\x00\x00\x00.", "opcode EXT4"),
        (b"Pid\n.", "opcode PERSID"),
        (b"K\x01Q.", "opcode BINPERSID"),
        (b"]2a.", "opcode DUP"),
        (b"\x97.", "opcode NEXT_BUFFER"),
        (b"\x96" + struct.pack("<Q", 1 << 60), "opcode BYTEARRAY8"),
        (b"\xff.", "opcode 0xff"),
        (b"S'x'\n.", "opcode STRING"),
        (b"I1\n.", "opcode INT"),
        (b".", "opcode STOP"),
        (b"NN.", "opcode STOP at byte 4 leaves 2 values"),
        (b"(N.", "opcode STOP"),
        (b"t.", "opcode TUPLE"),
        (b"h\x07.", "opcode BINGET"),
        (b"N}K\x01s.", "SETITEM"),
        (b"](K\x01u.", "SETITEMS"),
        (b"}(K\x01u.", "SETITEMS"),
        (b"}]K\x01s.", "a list is no key"),
        (b"})K\x01s.", "a tuple is no key"),
        (b"}G\x00\x00\x00\x00\x00\x00\x00\x00K\x01s.", "a float is no key"),
        (b"}\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01K\x01s.", "a int is no key"),
        (b"NNb.", "a NoneType has no state"),
        (b"B" + struct.pack("<I", 1 << 31), "cut short"),
        (b"\x8e" + struct.pack("<Q", 1 << 60), "cut short"),
        (b"\x8d" + struct.pack("<Q", 1 << 60), "cut short"),
        (b"X" + struct.pack("<I", 0xFFFFFFFF), "cut short"),
        (b"\x8b" + struct.pack("<i", 1 << 30), "whole number of 1073741824 bytes"),
        (b"\x8b" + struct.pack("<i", -1), "LONG4"),
        (b"\x95" + struct.pack("<Q", 1 << 60) + b"N.", "cut short: 1152921504606846976 bytes"),
        (b"\x80\x00N.", "protocol 0 is not read"),
        (b"X\x01\x00\x00\x00\xff.", "BINUNICODE"),
        (b"cunfinished", "a name has no end"),
        (b"N.N.", "2 bytes follow its end"),
        (b"N.", "holds none of the networks"),
        (b"]\x86.", "opcode TUPLE2"),
        (b")].", "STOP"),
        (b"NNN\x87.", "legacy.py of StyleGAN3"),
        (b"}X\x01\x00\x00\x00GNs.", "holds none of the networks"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R.", "numpy type 'O8'"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00V4\x85R.", "numpy type 'V4'"),
        (b"cnumpy\ndtype\nX\x03\x00\x00\x00c16\x85R.", "numpy type 'c16'"),
        (b"cnumpy.core.multiarray\nscalar\nNN\x86R.", "a scalar without type"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.", "_codecs.encode for something other"),
        (PERSISTENT + b"}\x85R.", "a persistent object without a proper type"),
        (PERSISTENT + b"NR.", "REDUCE"),
        (b"ctorch.storage\n_load_from_bytes\nC\x05hello\x85R.", "opcode "),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))NNtR.", "a tensor without storage"),
        (b"ctorch._utils\n_rebuild_parameter\n(NNNtR.", "a parameter that is no tensor"),
        (b"ctorch._utils\n_rebuild_tensor_v3\n.", "'torch._utils._rebuild_tensor_v3'"),
    ],
)  # fmt: skip
def test_opcodes_and_names_that_have_no_place(code: bytes, naming: str, tmp_path: Path):
    refused(tmp_path / "x.pkl", b"\x80\x02" + code, naming)


DOUBLED = b"N" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))  # a pair of pairs of pairs ...: 2^60 in print
NAMELESS = {"type": "class", "version": 6, "module_src": "", "class_name": "\x1b[2J", "state": {}}


@pytest.mark.parametrize(
    ("code", "naming"),
    [
        (b"cnumpy\ndtype\n" + DOUBLED + b"\x85R.", "numpy type of a tuple"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00a" + DOUBLED + b"\x86R.", "other than latin1"),
        (b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R(K\x03" + DOUBLED + b"tbC\x00\x86R.",
         "not little-endian"),
        (b"ctorch\ndevice\n(" + b"N" * 1000 + b"tR.", "torch.device with 1000 arguments"),
        (b"ctorch\nSize\n(" + b"N" * 10 + b"t\x85R.", "a shape of too many axes"),
        (b"X\x00\x04\x00\x00" + b"m" * 1024 + b"X\x01\x00\x00\x00C\x93.", "more than 200 letters"),
        (PERSISTENT + b"]\x85R.", "REDUCE"),
        (PERSISTENT + pickle.dumps(NAMELESS, 2)[2:-1] + b"\x85R.", "a class without a proper name"),
    ],
)  # fmt: skip
def test_what_would_grow_or_reach_the_terminal_is_refused_at_once(code: bytes, naming: str, tmp_path: Path):
    refused(tmp_path / "x.pkl", b"\x80\x02" + code, naming)


def stream(kind: bytes = b"FloatStorage", count: int = 4, data: bytes | None = None, **how: Any) -> bytes:
    """What torch.save writes for a storage."""
    data = struct.pack("<4f", 1, 2, 3, 4) if data is None else data
    pid = (
        b"\x80\x02(" + plain("storage") + b"c" + how.get("module", b"torch") + b"\n" + kind + b"\n" + plain("k")
        + plain("cpu") + b"\x8a\x08" + struct.pack("<q", count) + how.get("view", b"N") + b"tQ."
    )  # fmt: skip
    parts = [
        pickle.dumps(how.get("magic", MAGIC), 2), pickle.dumps(1001, 2),
        pickle.dumps({"little_endian": how.get("little", True)}, 2), pid, pickle.dumps(how.get("keys", ["k"]), 2),
        struct.pack("<q", how.get("said", count)), data,
    ]  # fmt: skip
    return b"".join(parts)


def tensor(size: tuple, stride: tuple, offset: int = 0, inner: bytes | None = None) -> bytes:
    """A file whose only value is a tensor."""
    inner = stream() if inner is None else inner
    load = b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(inner)) + inner + b"\x85R"
    shape = b"".join(b"(" + b"".join(map(plain, numbers)) + b"t" for numbers in (size, stride))
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + load + plain(offset) + shape + b"\x89NtR."


def plain(value: object) -> bytes:
    """The opcodes of a number or text."""
    return pickle.dumps(value, 2)[2:-1].partition(b"q\x00")[0]


@pytest.mark.parametrize(
    ("data", "naming"),
    [
        (tensor((4,), (1,)), "holds none of the networks"),  # this one is sound
        (tensor((5,), (1,)), r"shape \[5\] that reaches beyond its 4 numbers"),
        (tensor((4,), (1,), 1), "reaches beyond"),
        (tensor((2, 2), (3, 1)), "reaches beyond"),
        (tensor((1 << 40,), (0,)), "reaches beyond"),
        (tensor((1 << 20, 1 << 20, 1 << 20, 1 << 20), (0, 0, 0, 0)), "reaches beyond"),
        (tensor((2,), (-1,), 3), "impossible shape"),
        (tensor((-1,), (1,)), "impossible shape"),
        (tensor((2,), ()), "1 axes with 0 strides"),
        (tensor((1,) * 9, (1,) * 9), "9 axes"),
        (tensor((True,), (1,)), "impossible shape"),
        (tensor((0,), (1,), 9), "reaches beyond"),
        (tensor((4,), (1,), inner=stream(count=1 << 60)), "should hold 1152921504606846976 numbers"),
        (tensor((4,), (1,), inner=stream(count=-4)), "FloatStorage"),
        (tensor((4,), (1,), inner=stream(said=3)), "more or less than one storage"),
        (tensor((4,), (1,), inner=stream(data=b"\x00" * 15)), "it has 15 bytes"),
        (tensor((4,), (1,), inner=stream(keys=["k", "l"])), "more or less than one storage"),
        (tensor((4,), (1,), inner=stream(magic=1)), "torch.save did not write"),
        (tensor((4,), (1,), inner=stream(little=False)), "big-endian"),
        (tensor((4,), (1,), inner=stream(kind=b"ComplexFloatStorage")), "ComplexFloatStorage"),
        (tensor((4,), (1,), inner=stream(module=b"os", kind=b"system")), "'os.system'"),
        (tensor((4,), (1,), inner=stream(view=b"K\x01")), "no storage of tensors"),
    ],
)
def test_tensors_stay_within_their_bounds(data: bytes, naming: str, tmp_path: Path):
    refused(tmp_path / "x.pkl", data, naming)


def held(code: bytes) -> bytes:
    """A file with a network whose attribute is a tuple of all that the code leaves."""
    meta = {"type": plain("class"), "version": plain(6), "module_src": plain(""), "class_name": plain("N")}
    meta["state"] = b"}(" + plain("attribute") + b"(" + code + b"tu"
    items = b"".join(plain(key) + value for key, value in meta.items())
    return b"\x80\x02}" + plain("G") + PERSISTENT + b"}(" + items + b"u\x85Rs."


LETTERS = plain("a" * 4_000_000) + b"q\x00" + (b"c_codecs\nencode\nh\x00" + plain("latin1") + b"\x86R") * 1000
SETS = b"](" + plain("a") * 100_000 + b"eq\x00" + b"c__builtin__\nset\nh\x00\x85R" * 1000
WIDE = b"(" + b"h\x00" * 999 + b"tq\x00"
INSIDE = "lists stand inside one another"
BOMBS = {
    "doubled": (held(b")q\x00" + b"(h\x00h\x00tq\x00" * 64), "more than 200000 things"),
    "wide": (held(b")q\x00" + WIDE + WIDE), "more than 200000 things"),
    "cycle": (held(b"]q\x00h\x00a"), INSIDE),
    "lists": (held(b"]" * 100_000 + b"a" * 99_999), INSIDE),
    "deep tuples": (held(b")" + b"\x85" * 200_000), INSIDE),
    "opcodes": (b"\x80\x02" + b"]" * 2_000_000, "more than 300000 opcodes"),
    "deep marks": (b"\x80\x02" + b"(" * 70_000 + b"t" * 69_999 + b".", "STOP"),
    "bytes": (held(LETTERS), "more memory than its size can need"),
    "sets": (held(SETS), "more memory than its size can need"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_soon(name: str, tmp_path: Path):
    refused(tmp_path / "x.pkl", *BOMBS[name])


def test_modules_inside_modules_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known_modules(monkeypatch)
    layer = Module("Layer", {"_modules": {}})
    for _ in range(18):  # each twice in the next one: a quarter of a million
        layer = Module("Layer", {"_modules": {"a": layer, "b": layer}})
    refused(tmp_path / "x.pkl", pickle.dumps({"G": layer}), "holds more than 200000 things")
    loop = Module("Layer", {"_modules": {}})
    for _ in range(40):
        loop = Module("Layer", {"_modules": {"a": loop}})
    refused(tmp_path / "x.pkl", pickle.dumps({"G": loop}), "modules stand inside one another")


def test_one_storage_cannot_be_a_thousand_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known_modules(monkeypatch)
    weight = torch.nn.Parameter(torch.ones(100_000), requires_grad=False)
    state = {"_parameters": {f"w{i}": weight for i in range(1000)}, "_buffers": {}, "_modules": {}}
    refused(tmp_path / "x.pkl", pickle.dumps({"G": Module("N", state)}), "more memory than the file")


@pytest.mark.parametrize(
    ("state", "naming"),
    [
        ({"_parameters": []}, "_parameters of N is a list"),
        ({"_parameters": {"w": 3}}, "parameters of N hold a int"),
        ({"_parameters": {3: torch.ones(1)}}, "the name of a tensor"),
        ({"_parameters": {"w" * 100: torch.ones(1)}}, "the name of a tensor"),
        ({"_modules": 3}, "_modules of N is a int"),
        ({"_init_kwargs": 3}, "_init_kwargs of N is a int"),
        ({"_non_persistent_buffers_set": ["a"]}, "_non_persistent_buffers_set of N is a list"),
    ],
)
def test_a_network_of_another_form_is_told(state: dict, naming: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known_modules(monkeypatch)
    refused(tmp_path / "x.pkl", pickle.dumps({"G": Module("N", state)}), naming)


def test_every_opcode_has_a_name():
    assert pickle_machine.STEPS.keys() < pickle_machine.NAMES.keys()
