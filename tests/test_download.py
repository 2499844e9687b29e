"""Files from the net are fetched once, whole and checked; offline no connection is opened."""

import hashlib
import http.server
import socket
import threading
from pathlib import Path

import pytest

from dnnlib import download
from dnnlib.download import cached_at, fetch
from dnnlib.errors import CheckpointError
from training.importers import pretrained
from training.importers.pretrained import published_file, tables
from training.snapshot import find_snapshot

CONTENT = bytes(range(256)) * 9000  # more than two blocks
HASH = hashlib.sha256(CONTENT).hexdigest()


class Answers(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if self.path.startswith("/absent"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path.startswith("/broken") else CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Address of a server on this machine, and what it was asked for."""
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    handler = type("Handler", (Answers,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()


def test_a_file_comes_once_and_its_hash_is_kept(host, tmp_path: Path):
    url, asked = host
    path = fetch(f"{url}/nets/ffhq.pkl")
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache")
    assert path.with_name("ffhq.pkl.sha256").read_text() == f"{HASH}  ffhq.pkl\n"
    assert fetch(f"{url}/nets/ffhq.pkl", offline=True) == path
    assert fetch(f"{url}/nets/ffhq.pkl", sha256=HASH) == path
    assert asked == ["/nets/ffhq.pkl"]
    assert fetch(f"{url}/others/ffhq.pkl") != path
    path.write_bytes(CONTENT + b"x")
    with pytest.raises(CheckpointError, match=r"ffhq\.pkl has changed: its SHA-256 is .* remove it"):
        fetch(f"{url}/nets/ffhq.pkl")


@pytest.mark.parametrize(
    ("name", "how", "complaint"),
    [
        ("absent.pkl", {}, r"absent\.pkl cannot be downloaded \(Not Found\).*put it at /"),
        ("broken.pkl", {}, r"broken\.pkl (broke off after 1000 of 2304000 bytes|cannot be downloaded)"),
        ("good.pkl", {"sha256": "0" * 64}, r"good\.pkl is another file by now"),
        ("good.pkl", {"offline": True}, r"offline=True, and good\.pkl is not here yet: get http.*put it at /"),
    ],
)
def test_what_cannot_be_had_is_told_and_leaves_nothing(name: str, how: dict, complaint: str, host, tmp_path: Path):
    url, asked = host
    with pytest.raises(CheckpointError, match=complaint) as told:
        fetch(f"{url}/{name}", **how)
    assert "\n" not in str(told.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert bool(asked) is not bool(how.get("offline"))


def test_offline_opens_no_socket(host, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object, **__: object):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    for name in ("ffhq256", "https://example.invalid/a.pkl"):
        with pytest.raises(CheckpointError, match="offline=True"):
            find_snapshot(name, {"offline": True})


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(CheckpointError, match="Connection refused"):
        fetch(f"http://127.0.0.1:{port}/a.pkl")


@pytest.mark.parametrize("url", ["ftp://a/b.pkl", "https://", "https://host/folder/", "b.pkl", ""])
def test_what_is_no_address_is_told(url: str):
    with pytest.raises(CheckpointError, match="no address of a file"):
        cached_at(url)


def test_names_stay_inside_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path))
    assert cached_at("https://host:80/../../a b/%2e%2e/c.pkl") == tmp_path / "host_80" / "a_b" / "_2e_2e" / "c.pkl"
    assert download.cache_folder() == tmp_path


def test_the_tables_are_sound():
    known = tables()
    assert {"stylegan2", "eg3d"} <= known.keys()
    assert {"ffhq256", "ffhq512", "metfaces"} <= known["stylegan2"].keys()
    assert {"ffhq512-64", "ffhq512-128", "shapenetcars128-64"} <= known["eg3d"].keys()
    for table in known.values():
        for name, entry in table.items():
            assert entry.keys() == {"url", "sha256", "licence"}, name
            assert entry["url"].startswith("https://"), name
            assert "NVIDIA" in entry["licence"]
            assert cached_at(entry["url"]).suffix == ".pkl"


def test_a_name_is_a_file_of_the_run_s_model_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path / "cache"))
    for name in ("own", "first", "second"):
        (tmp_path / f"{name}.pkl").write_bytes(name.encode())
    entries = {n: {"url": f"file://{tmp_path}/{n}.pkl", "licence": f"that of {n}"} for n in ("own", "first", "second")}
    known = {"a": {"net": entries["first"], "x": entries["first"]}, "b": {"net": entries["second"]}}
    monkeypatch.setattr(pretrained, "tables", lambda: known)

    def read(name: str, **run: object) -> bytes:
        path = find_snapshot(name, run)
        return path.read_bytes()

    assert read("net", model={"pretrained": {"net": entries["own"]}}) == b"own"
    assert "net: that of own" in capsys.readouterr().out
    assert (read("x"), read("a/net"), read("b/net", model=None)) == (b"first", b"first", b"second")
    with pytest.raises(CheckpointError, match="say a/net or b/net"):
        find_snapshot("net")
    assert published_file("nothing") is None
    with pytest.raises(CheckpointError, match=r"no file or folder .*nothing, and no published file of that name"):
        find_snapshot("nothing")


def test_addresses_that_differ_in_their_query_alone_are_two_files():
    one, other = (cached_at(f"https://example.org/uc?id={name}") for name in "AB")
    assert one != other
    assert one.name.startswith("uc-")


def test_no_password_becomes_part_of_a_path():
    assert "secret" not in str(cached_at("https://user:secret@example.org:81/net.pkl"))


def test_an_address_that_is_none_is_one_sentence():
    with pytest.raises(CheckpointError, match="is no address of a file"):
        cached_at("https://[x")
