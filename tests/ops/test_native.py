"""C texts and the libraries made of them: where they are kept, when they are compiled, and what can go wrong."""

import os
import pwd
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch

from torch_utils.ops import builds, native
from torch_utils.ops.native import Unavailable

REAL = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
needs_compiler = pytest.mark.skipif(REAL is None, reason="no C compiler on this machine")

TEXT = """
int twice(int x) { return 2 * x; }
#ifdef _OPENMP
int has_threads(void) { return 1; }
#else
int has_threads(void) { return 0; }
#endif
"""


class Workshop:
    """A folder of texts, a cache, and compilers that are scripts."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.text, self.cache, self.log, self.patch = folder / "tiny.c", folder / "cache", folder / "log", patch
        self.text.write_text(TEXT)
        self.log.touch()

    def take_compiler(self, before: str = "", then: str = f'exec {REAL} "$@"') -> Path:
        """Let CC be a script that does something before it compiles, or says that it does so."""
        script = self.text.parent / "compiler"
        script.write_text(f'#!/bin/sh\n{before}\necho "$@" >> {self.log}\n{then}\n')
        script.chmod(0o755)
        self.patch.setenv("CC", str(script))
        return script

    def forget(self) -> None:
        """What a new process would not know."""
        native.library.cache_clear()
        native.why_not.cache_clear()

    def compilations(self) -> int:
        return sum("-shared" in line for line in self.log.read_text().splitlines())

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.cache.iterdir())


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    place = Workshop(tmp_path, monkeypatch)
    monkeypatch.setattr(builds, "TEXTS", tmp_path)
    monkeypatch.setenv("PARALLAX_CACHE", str(place.cache))
    monkeypatch.delenv("CC", raising=False)
    place.forget()
    yield place
    place.forget()


def refusal() -> str:
    """Why there is no library of the tiny text: one sentence, however it is asked for."""
    with pytest.raises(Unavailable) as caught:
        native.library()
    said = str(caught.value)
    assert said
    assert "\n" not in said
    assert native.why_not() is not None
    assert not native.ready()
    return said


def test_libraries_are_kept_where_the_user_says_else_where_caches_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path / "own"))
    assert native.cache_folder() == tmp_path / "own"
    monkeypatch.setenv("PARALLAX_CACHE", "")
    assert native.cache_folder() == tmp_path / "xdg" / "parallax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert native.cache_folder() == tmp_path / "home" / ".cache" / "parallax"


@needs_compiler
def test_a_text_is_compiled_once(workshop):
    workshop.take_compiler()
    for _ in range(3):
        assert native.library().twice(21) == 42
        assert native.why_not() is None
        workshop.forget()
    assert workshop.compilations() == 1
    assert len(workshop.kept()) == 1


@needs_compiler
def test_another_text_header_compiler_or_processor_makes_another_library(workshop):
    script = workshop.take_compiler()
    native.library()
    workshop.forget()
    workshop.text.write_text(TEXT.replace("2 * x", "3 * x"))
    assert native.library().twice(21) == 63
    workshop.forget()
    (workshop.text.parent / "shared.h").write_text("/* a text may include it */\n")
    native.library()
    workshop.forget()
    script.write_text(script.read_text().replace("exec", '[ "$1" = --version ] && echo newer && exit\nexec'))
    assert native.library().twice(21) == 63
    workshop.forget()
    workshop.patch.setattr(native, "_processor", lambda: "another kind, in whose home folder this is, too")
    assert native.library().twice(21) == 63
    assert workshop.compilations() == len(workshop.kept()) == 5


@needs_compiler
def test_two_that_compile_at_once_leave_one_good_library_and_no_drafts(workshop):
    workshop.take_compiler('case "$*" in *-shared*) sleep 0.3;; esac')
    start = Barrier(2)

    def ask(_) -> str:
        start.wait()
        return native.library()._name

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert workshop.compilations() == 2
    assert first == second
    assert workshop.kept() == [Path(first).name]
    assert native.library().twice(21) == 42
    assert workshop.compilations() == 2


def test_without_a_compiler_it_says_so(workshop):
    workshop.patch.setenv("PATH", "")
    assert "no C compiler" in refusal()
    assert not workshop.cache.exists()


@needs_compiler
def test_a_compiler_that_does_not_exist_gives_way_to_the_usual_ones(workshop):
    workshop.patch.setenv("CC", str(workshop.cache / "nothing"))
    assert native.library().twice(21) == 42


@pytest.mark.parametrize("fails_at", ["*", "*-shared*"])
def test_a_failing_compiler_is_quoted_with_its_first_line(workshop, fails_at):
    script = workshop.take_compiler(then=f'case "$*" in {fails_at}) echo "no licence\nsee manual" >&2; exit 3;; esac')
    said = refusal()
    assert "no licence" in said
    assert str(script) in said
    assert "manual" not in said
    assert not workshop.cache.exists() or not workshop.kept()


@pytest.mark.parametrize("then", ["exit 3", "kill -9 $$"])
def test_a_compiler_that_fails_without_a_word_is_named(workshop, then):
    script = workshop.take_compiler(then=then)
    assert str(script) in refusal()


def test_a_compiler_that_cannot_be_run_or_makes_nothing_is_refused(workshop):
    workshop.take_compiler(then="exit 0")
    assert "No such file" in refusal()
    assert not workshop.kept()
    workshop.forget()
    Path(os.environ["CC"]).write_bytes(b"\x00neither a script nor a program")
    assert "format" in refusal()


def test_a_compiler_may_say_what_is_no_text(workshop):
    workshop.take_compiler(then=r"printf 'erreur \351trange' >&2; exit 1")
    assert "erreur" in refusal()


def test_a_compiler_that_never_ends_is_not_waited_for(workshop, monkeypatch):
    monkeypatch.setattr(builds, "SLOWEST", 0.2)
    workshop.take_compiler(then="exec sleep 30")
    assert "0.2 s" in refusal()


@needs_compiler
def test_threads_are_used_where_the_compiler_has_them_and_only_there(workshop):
    workshop.take_compiler('case "$*" in *-fopenmp*) echo "unknown -fopenmp" >&2; exit 1;; esac')
    assert native.library().twice(21) == 42
    assert not native.library().has_threads()
    assert [name.endswith("-one-thread.so") for name in workshop.kept()] == [True]
    assert "one-thread" in native.version("cpu")


@needs_compiler
def test_a_compiler_that_was_interrupted_leaves_nothing_behind(workshop):
    script = workshop.take_compiler(then='case "$*" in *-shared*) kill -INT $$;; esac')
    refusal()
    assert not workshop.kept()
    workshop.forget()
    script.write_text(f'#!/bin/sh\nexec {REAL} "$@"\n')
    assert native.library().has_threads() or native.library().twice(21) == 42


@needs_compiler
@pytest.mark.parametrize("which", ["folder", "library"])
def test_what_others_can_write_is_not_loaded(workshop, which):
    native.library()
    workshop.forget()
    place = workshop.cache if which == "folder" else workshop.cache / workshop.kept()[0]
    place.chmod(0o777)
    assert "others can write" in refusal()


@needs_compiler
def test_an_error_in_the_text_is_told(workshop):
    workshop.text.write_text("int twice(int x) { return 2 * }\n")
    assert "error" in refusal()
    assert not workshop.kept()


@needs_compiler
@pytest.mark.parametrize("below", ["", "further/down"])
def test_a_cache_that_cannot_be_written_is_told(workshop, below):
    workshop.cache.write_text("a file where the folder should be")
    workshop.patch.setenv("PARALLAX_CACHE", str(workshop.cache / below))
    assert str(workshop.cache) in refusal()
    assert workshop.cache.read_text() == "a file where the folder should be"


@needs_compiler
def test_the_cache_may_be_the_current_folder(workshop):
    workshop.cache.mkdir()
    workshop.patch.chdir(workshop.cache)
    workshop.patch.setenv("PARALLAX_CACHE", ".")
    assert native.library().twice(21) == 42


@needs_compiler
def test_a_user_without_a_home_is_told(workshop):
    def nobody(_):
        raise KeyError("uid not found")

    for name in ("PARALLAX_CACHE", "XDG_CACHE_HOME", "HOME"):
        workshop.patch.delenv(name, raising=False)
    workshop.patch.setattr(pwd, "getpwuid", nobody)
    assert "home" in refusal()


@needs_compiler
@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_library_is_named(workshop, left):
    target = native.cache_folder() / f"{native._name()}.so"
    target.parent.mkdir(mode=0o700)
    target.write_bytes(Path(sys.executable).read_bytes()[:left])  # the start of some library
    assert str(target) in refusal()


@needs_compiler
def test_a_run_is_told_which_way_operators_go(workshop):
    assert native._name() in native.in_words("cpu")
    assert native.version("cpu") == native._name()
    workshop.patch.setattr(native, "_choice", "torch")
    assert "ops=torch" in native.in_words("cpu")
    assert native.version("cpu") == "torch"
    workshop.patch.setattr(native, "_choice", "auto")
    workshop.patch.setenv("PATH", "")
    workshop.forget()
    assert "no C compiler" in native.in_words("cpu")
    assert native.version("cpu") == "torch"


@needs_compiler
def test_the_choice_of_the_user_comes_first(workshop):
    assert native.ready()
    try:
        native.choose("torch")
        assert not native.ready()
    finally:
        native.choose("auto")
    assert native.ready()


def test_a_job_gets_no_more_threads_than_torch_or_units():
    torch.set_num_threads(3)
    assert [native.workers_for(units) for units in (0, 1, 2, 3, 100)] == [1, 1, 2, 3, 3]
    torch.set_num_threads(1)
    assert native.workers_for(100) == 1
