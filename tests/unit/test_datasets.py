"""Data sets: downloaded from whoever has them, converted, and never believed without their hash."""

import hashlib
import http.server
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from didact import datasets
from didact.datasets import _convert, _modes, _store, _trees
from didact.datasets._download import _PIECE as PIECE
from didact.datasets._download import Source, download, take
from didact.datasets._registry import DATA_SETS, DataSet
from didact.datasets._store import ArraySpec, DataError, Layout, MissingData

DATA = os.environ.get("DIDACT_DATA_DIR")
needs_data = pytest.mark.skipif(
    not DATA, reason="needs `didact data fetch all` and DIDACT_DATA_DIR"
)
needs_raw = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "raw" / "sehstr_gbtr.pkl").is_file(),
    reason="needs the published files in the folder raw of DIDACT_DATA_DIR",
)

# ---- a server of files, with the faults that servers have -----------------------------------


class Server:
    """Serves bytes by path. `cut`: how many bytes of a body each next answer sends at most."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: list[int] = []
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        body = self.files.get(request.path)
        if body is None:
            request.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        request.send_response(206 if wanted and self.ranges else 200)
        if wanted and self.ranges:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        end = start + self.cut.pop(0) if self.cut else len(body)
        request.wfile.write(body[start:end])

    def source(self, name: str, body: bytes, *paths: str, needed: bool = True) -> Source:
        """A file as the registry has it, published at these paths."""
        host, port = self.http.server_address[:2]
        addresses = tuple(f"http://{host}:{port}{path}" for path in paths)
        return Source(name, len(body), hashlib.sha256(body).hexdigest(), addresses, needed)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


BODY = np.random.default_rng(0).bytes(100_000)


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    server.files = {"/a/file": BODY}
    source = server.source("file", BODY, "/a/file")
    assert download(source, tmp_path / "new") == BODY
    assert download(source, tmp_path / "new") == BODY
    assert server.asked == [("/a/file", None)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_cut_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.files = {"/a/file": BODY}
    server.cut = [PIECE * 7, PIECE * 4 + 10]
    assert download(server.source("file", BODY, "/a/file"), tmp_path) == BODY
    rest = [None, f"bytes={PIECE * 7}-", f"bytes={PIECE * 11}-"]
    assert [wanted for _, wanted in server.asked] == rest


def test_the_next_attempt_goes_on_where_the_last_one_failed(server: Server, tmp_path: Path) -> None:
    server.files = {"/a/file": BODY}
    server.cut = [PIECE * 7, 0]
    source = server.source("file", BODY, "/a/file")
    with pytest.raises(DataError, match=r"cut|[Cc]onnection|IncompleteRead"):
        download(source, tmp_path)
    assert (tmp_path / "file.partial").stat().st_size == PIECE * 7
    assert download(source, tmp_path) == BODY
    assert [wanted for _, wanted in server.asked] == [None, *[f"bytes={PIECE * 7}-"] * 2]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_address_goes_on_as_well(server: Server, tmp_path: Path) -> None:
    server.files = {"/a/file": BODY, "/b/file": BODY}
    server.cut = [PIECE * 7, 0]
    assert download(server.source("file", BODY, "/a/file", "/b/file"), tmp_path) == BODY
    assert server.asked[-1] == ("/b/file", f"bytes={PIECE * 7}-")


def test_a_server_without_ranges_is_asked_for_everything(server: Server, tmp_path: Path) -> None:
    server.files = {"/a/file": BODY}
    server.ranges, server.cut = False, [PIECE * 7]
    assert download(server.source("file", BODY, "/a/file"), tmp_path) == BODY
    assert len(server.asked) == 2


def test_a_missing_file_and_a_wrong_one_lead_to_the_next_address(
    server: Server, tmp_path: Path
) -> None:
    server.files = {"/b/file": BODY[:-1] + b"\0", "/c/file": BODY + b"more", "/d/file": BODY}
    source = server.source("file", BODY, "/a/file", "/b/file", "/c/file", "/d/file")
    assert download(source, tmp_path) == BODY
    assert [path for path, _ in server.asked] == ["/a/file", "/b/file", "/c/file", "/d/file"]


def test_a_spoilt_beginning_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.files = {"/a/file": BODY}
    _ = (tmp_path / "file.partial").write_bytes(b"x" * 1_000)
    assert download(server.source("file", BODY, "/a/file"), tmp_path) == BODY
    assert [wanted for _, wanted in server.asked] == ["bytes=1000-", None]


def test_a_file_that_nobody_has_is_one_line(server: Server, tmp_path: Path) -> None:
    server.files = {"/b/file": b"x" * len(BODY)}
    with pytest.raises(DataError, match="file could not be downloaded") as error:
        download(server.source("file", BODY, "/a/file", "/b/file"), tmp_path)
    message = str(error.value)
    assert "404" in message
    assert "another file than expected" in message
    assert "--from FOLDER" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_longer_file_is_not_downloaded_to_its_end(server: Server, tmp_path: Path) -> None:
    server.files = {"/a/file": bytes(10**8)}
    with pytest.raises(DataError, match="another file"):
        download(server.source("file", BODY, "/a/file"), tmp_path)


def test_a_file_is_taken_from_a_folder(server: Server, tmp_path: Path) -> None:
    source = server.source("file", BODY, "/a/file")
    with pytest.raises(DataError, match=r"file cannot be read \(No such file.*published at"):
        take(source, tmp_path)
    _ = (tmp_path / "file").write_bytes(BODY + b"\0")
    with pytest.raises(DataError, match="is not the file that is meant"):
        take(source, tmp_path)
    _ = (tmp_path / "file").write_bytes(BODY)
    assert take(source, tmp_path) == BODY
    assert server.asked == []


# ---- a data set of a test's own ---------------------------------------------------------------

BLOCKS = datasets.Blocks("01", ("C", "CO"), ((0, 0), (0, 1)), ("a", "b"))
NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
LAYOUT = Layout(
    "numbers", {"numbers.npz": {"x": ArraySpec.of(NUMBERS)}}, _store.blocks_sha256(BLOCKS)
)


def _numbers(files: dict[str, bytes]) -> dict[str, Any]:
    x = np.frombuffer(files["x"], np.float32).reshape(2, 3)
    return {"numbers.npz": {"x": x}, "blocks.json": BLOCKS}


def _data_set(server: Server) -> DataSet:
    body = NUMBERS.tobytes()
    server.files = {"/x": body}
    extra = server.source("extra", b"nobody has it", "/extra", needed=False)
    return DataSet((server.source("x", body, "/nowhere", "/x"), extra), _numbers, LAYOUT)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_data_set_is_fetched_once(server: Server, folder: Path) -> None:
    data_sets = {"numbers": _data_set(server)}
    told: list[str] = []
    (found,) = datasets._fetch.fetch("all", data_sets=data_sets, on_progress=told.append)
    assert (found.name, found.state, found.folder) == ("numbers", "present", folder / "numbers")
    assert any("Going on without extra" in text for text in told)
    assert _store.read_arrays(LAYOUT, folder, "numbers")["x"].tolist() == NUMBERS.tolist()
    assert _store.read_blocks(LAYOUT, folder, "numbers") == BLOCKS
    asked = len(server.asked)
    (found,) = datasets._fetch.fetch("numbers", data_sets=data_sets)
    assert found.state == "present"
    assert len(server.asked) == asked
    with pytest.raises(ValueError, match="unknown data set 'letters'; there are numbers and all"):
        datasets._fetch.fetch("letters", data_sets=data_sets)


def test_a_data_set_is_made_of_the_files_of_a_folder(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    data_sets = {"numbers": _data_set(server)}
    with pytest.raises(DataError, match="x cannot be read"):
        datasets._fetch.fetch("numbers", source=tmp_path, data_sets=data_sets)
    assert not folder.exists()
    _ = (tmp_path / "x").write_bytes(NUMBERS.tobytes())
    datasets._fetch.fetch("numbers", source=tmp_path, data_sets=data_sets)
    assert server.asked == []
    assert sorted(path.name for path in folder.rglob("*.*")) == ["blocks.json", "numbers.npz"]


def test_another_result_than_expected_is_not_written(server: Server, folder: Path) -> None:
    found = _data_set(server)
    other = DataSet(found.sources, lambda files: {"numbers.npz": {"x": NUMBERS + 1}}, LAYOUT)
    with pytest.raises(DataError, match=r"numbers/numbers.npz gave something else"):
        datasets._fetch.fetch("numbers", data_sets={"numbers": other})
    assert not (folder / "numbers").exists()


def test_every_changed_byte_of_what_matters_is_found(folder: Path) -> None:
    _store.write(LAYOUT, folder, {"numbers.npz": {"x": NUMBERS}, "blocks.json": BLOCKS})
    path = folder / "numbers" / "numbers.npz"
    data = path.read_bytes()
    found = 0
    for place, bits in itertools.product(range(len(data)), (1, 255)):
        changed = bytearray(data)
        changed[place] ^= bits
        _ = path.write_bytes(changed)
        try:
            x = _store.read_arrays(LAYOUT, folder, "numbers")["x"]
        except DataError as error:
            found += 1
            assert str(error) == f"{path} is damaged: didact data fetch numbers"  # noqa: PT017
        else:
            assert x.tobytes() == NUMBERS.tobytes()
    assert found > len(data)
    for size in range(0, len(data), 7):
        _ = path.write_bytes(data[:size])
        with pytest.raises(DataError, match="is damaged: didact data fetch numbers"):
            _store.read_arrays(LAYOUT, folder, "numbers")


@pytest.mark.parametrize(
    "array", [NUMBERS + 1, NUMBERS.astype(np.float64), NUMBERS.T, NUMBERS.reshape(3, 2)]
)
def test_another_array_is_found(array: np.ndarray, folder: Path) -> None:
    (folder / "numbers").mkdir(parents=True)
    np.savez(folder / "numbers" / "numbers.npz", x=array)
    with pytest.raises(DataError, match="damaged"):
        _store.read_arrays(LAYOUT, folder, "numbers")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"alphabet": 1}', "[" * 10_000, "\ud800", "other"]
)
def test_other_blocks_are_found(text: str, folder: Path) -> None:
    (folder / "numbers").mkdir(parents=True)
    if text == "other":
        text = json.dumps(BLOCKS.to_json() | {"smiles": ["C", "CN"]})
    _ = (folder / "numbers" / "blocks.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=r"blocks.json is damaged: didact data fetch numbers"):
        _store.read_blocks(LAYOUT, folder, "numbers")


def test_missing_data_are_one_line_with_the_command(folder: Path) -> None:
    for name in DATA_SETS:
        with pytest.raises(MissingData, match=rf"is missing: didact data fetch {name}$") as error:
            datasets.load(name)
        assert isinstance(error.value, ValueError)
        assert str(folder) in str(error.value)
    with pytest.raises(MissingData, match="didact data fetch qm9"):
        datasets.blocks("qm9")
    with pytest.raises(ValueError, match="has no blocks"):
        datasets.blocks("tfbind8")
    with pytest.raises(ValueError, match="unknown data set 'rna'"):
        datasets.load("rna")
    assert [(found.name, found.state) for found in datasets.status()] == [
        (name, "missing") for name in DATA_SETS
    ]


def test_the_data_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIDACT_DATA_DIR", raising=False)
    assert datasets.data_dir().name == "didact"
    assert datasets.data_dir().is_absolute()


def test_only_public_addresses_stand_in_the_registry() -> None:
    for data_set in DATA_SETS.values():
        for source in data_set.sources:
            for address in source.addresses:
                assert address.startswith("https://raw.githubusercontent.com/")
                commit = address.split("/")[5]
                assert len(commit) == 40
                assert address.endswith(f"/{source.name}")
            assert len(source.sha256) == 64


# ---- blocks, strings, tables ------------------------------------------------------------------


def test_blocks_come_back_from_json() -> None:
    assert datasets.Blocks.from_json(json.loads(json.dumps(BLOCKS.to_json()))) == BLOCKS
    for change in (
        {"alphabet": "0"},
        {"smiles": ["C", 1]},
        {"smiles": None},
        {"attach": [[0, 0], [0]]},
        {"attach": [[0, 0], [0, "1"]]},
        {"attach": [[0, 0], 1]},
        {"name": ["a"]},
    ):
        with pytest.raises(ValueError, match=r"block|it holds"):
            datasets.Blocks.from_json(BLOCKS.to_json() | change)


def test_published_blocks_are_in_the_order_of_their_numbers() -> None:
    published = {
        "block_name": {str(k): f"n{k}" for k in reversed(range(11))},
        "block_smi": {str(k): "C" * (k + 1) for k in range(11)},
        "block_r": {str(k): [0, k] for k in range(11)},
    }
    found = _convert.published_blocks(json.dumps(published).encode())
    assert found.alphabet == "0123456789a"
    assert found.names == tuple(f"n{k}" for k in range(11))
    assert found.smiles[10] == "C" * 11
    assert found.attach[10] == (0, 10)
    for text in ("{}", "[]", '{"block_name": {"a": "b"}, "block_smi": {}, "block_r": {}}'):
        with pytest.raises(ValueError, match="holds no blocks"):
            _convert.published_blocks(text.encode())


def test_numbers_follow_the_order_of_the_strings() -> None:
    strings = ["".join(letters) for letters in itertools.product("0a1", repeat=3)]
    np.testing.assert_array_equal(_convert.index_of(strings, "0a1"), np.arange(27))
    np.testing.assert_array_equal(
        _trees.digits_of(np.arange(27), 3, 3), list(itertools.product(range(3), repeat=3))
    )
    for wrong in (["00", "0"], ["0b"], ["0", "é"], []):
        with pytest.raises(ValueError, match=r"letters|ascii"):
            _convert.index_of(wrong, "0a1")


def test_a_table_of_all_strings_is_put_in_order() -> None:
    strings = ["".join(letters) for letters in itertools.product("01", repeat=3)]
    values = {text: np.float32(int(text, 2)) for text in reversed(strings)}
    found = _convert.value_table(values, "01")
    np.testing.assert_array_equal(found, np.arange(8, dtype=np.float32))
    assert found.dtype == np.float32
    del values["010"]
    with pytest.raises(ValueError, match="some of the strings only"):
        _convert.value_table(values, "01")
    with pytest.raises(ValueError, match="no table of strings"):
        _convert.value_table([1], "01")


def test_scores_belong_to_a_string_and_its_complement() -> None:
    complement = str.maketrans("ACGT", "TGCA")
    strings = ["".join(letters) for letters in itertools.product("ACGT", repeat=8)]
    rows = [f"{s}\t{s.translate(complement)[::-1]}\t{i}\t0" for i, s in enumerate(strings)]
    half = [row for row in rows if row.split("\t")[0] <= row.split("\t")[1]]
    table = _convert.score_table("\n".join(["a\tb\tc\td", *half]).encode())
    score = table * (int(half[-1].split("\t")[2]))
    for text, index in (("AAAAAAAC", 1), ("GTTTTTTT", 1), ("ACGTACGT", strings.index("ACGTACGT"))):
        assert round(float(score[strings.index(text)])) == index
    with pytest.raises(ValueError, match="some of the strings only"):
        _convert.score_table("\n".join(["a\tb\tc\td", *half[1:]]).encode())
    with pytest.raises(ValueError, match="no table"):
        _convert.score_table(b"a\tb\n")


def test_published_strings_are_sorted() -> None:
    # A set, as the published file of the modes of sEH is.
    data = pickle.dumps({"1000", "0001", "0100"}, 3)
    np.testing.assert_array_equal(_convert.published_strings(data, "01"), [1, 4, 8])
    with pytest.raises(ValueError, match="no set of strings"):
        _convert.published_strings(pickle.dumps({"a": 1}), "01")


# ---- trees ------------------------------------------------------------------------------------

NODE = np.dtype(
    [
        *(("value", "f8"), ("count", "u4"), ("feature_idx", "u4"), ("num_threshold", "f8")),
        *(("left", "u4"), ("right", "u4"), ("is_leaf", "u1"), ("is_categorical", "u1")),
    ]
)


def _grow(random: np.random.Generator, splits: int) -> np.ndarray:
    """A tree whose nodes are numbered depth first, as scikit-learn has them."""
    nodes: list[tuple[Any, ...]] = []

    def add(left: int) -> int:
        number = len(nodes)
        nodes.append(())
        if left == 0:
            nodes[number] = (random.normal(), 0, 0, 0.0, 0, 0, 1, 0)
            return number
        first = int(random.integers(left))
        feature = int(random.integers(6 * 18))
        below = add(first)
        nodes[number] = (0.0, 0, feature, 0.5, below, add(left - 1 - first), 0, 0)
        return number

    add(splits)
    return np.array(nodes, NODE)


def _pickled(trees: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A pickle as scikit-learn writes it, which need not be installed."""
    made: dict[str, type] = {}
    for module, name in _convert._FOREST:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            above = ".".join(parts[:end])
            monkeypatch.setitem(sys.modules, above, types.ModuleType(above))
        home = sys.modules[module]
        made[name] = type(name, (), {"__module__": module, "__qualname__": name})
        setattr(home, name, made[name])
    model = made["HistGradientBoostingRegressor"]()
    predictors = []
    for nodes in trees:
        predictor = made["TreePredictor"]()
        predictor.nodes = nodes
        predictors.append([predictor])
    model._predictors, model._baseline_prediction = predictors, np.float64(2.5)
    model._loss = made["LeastSquares"]()
    return pickle.dumps(model, 4)


def _walk(trees: list[np.ndarray], digits: np.ndarray) -> float:
    total = 2.5
    for nodes in trees:
        node = nodes[0]
        while not node["is_leaf"]:
            position, block = divmod(int(node["feature_idx"]), 18)
            node = nodes[node["right" if digits[position] == block else "left"]]
        total += float(node["value"])
    return total


def test_trees_are_what_was_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    grown = [_grow(random, 9) for _ in range(7)]
    found = _convert.forest(_pickled(grown, monkeypatch))
    assert found["baseline"] == 2.5
    assert found["feature"].shape == (7, 19)
    assert found["leaf_value"].shape == (70,)
    index = random.integers(18**6, size=200)
    expected = [_walk(grown, digits) for digits in _trees.digits_of(index, 18, 6)]
    np.testing.assert_array_equal(_trees.predict(found, index), expected)
    blocks = _trees.table_blocks(found, rows=2)
    first, second = next(blocks), next(blocks)
    table = np.concatenate([first, second]).reshape(-1)
    np.testing.assert_allclose(table, _trees.predict(found, np.arange(len(table))), atol=1e-13)


def test_other_trees_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    for name, value, reason in (
        ("is_categorical", 1, "something else"),
        ("num_threshold", 1.5, "something else"),
        ("feature_idx", 108, "leads nowhere"),
        ("left", 0, "leads nowhere"),
        ("right", 99, "leads nowhere"),
    ):
        nodes = _grow(random, 3)
        nodes[name][0] = value
        with pytest.raises(ValueError, match=reason):
            _convert.forest(_pickled([nodes], monkeypatch))
    for data in (pickle.dumps([1]), pickle.dumps({}), _pickled([], monkeypatch)):
        with pytest.raises(ValueError, match=r"no trees|at least one array"):
            _convert.forest(data)
    trees = np.zeros((3, 6), np.int32)
    with pytest.raises(ValueError, match="the same number of leaves"):
        _trees.leaf_words(trees, 2)


# ---- modes ------------------------------------------------------------------------------------


def test_the_best_are_the_best() -> None:
    values = np.random.default_rng(0).normal(size=2_000).astype(np.float32)
    modes = _modes.best(values)
    assert modes.tolist() == sorted(np.argsort(values)[-10:].tolist())
    # Of equal ones the first.
    assert _modes.best(np.zeros(1_000, np.float32)).tolist() == [0, 1, 2, 3, 4]


def test_modes_of_tfbind8_are_taken_from_the_best_downwards() -> None:
    random = np.random.default_rng(0)
    strings = np.array(list(itertools.product(range(4), repeat=6)))
    values = random.integers(50, size=len(strings)).astype(np.float32)  # with many ties
    taken: list[int] = []
    for index in sorted(range(len(values)), key=lambda i: (-values[i], i)):
        far = all(np.sum(strings[index] != strings[other]) > 1 for other in taken)
        if far and len(taken) < round(0.005 * len(values)):
            taken.append(index)
    assert len(taken) == 20
    assert _modes.far_apart(values).tolist() == taken


def test_leaders_are_far_from_all_that_come_before() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(size=40)
    similarity = 1 - np.abs(points[:, None] - points) * 4
    candidates = np.sort(random.choice(1_000, 40, replace=False)).astype(np.int32)
    taken: list[int] = []
    for i in range(40):
        if all(1 - similarity[i, j] > 0.4 for j in taken):
            taken.append(i)
    assert 2 < len(taken) < 20
    found = _modes.leaders(candidates, lambda i: similarity[i])
    assert found.tolist() == candidates[taken].tolist()


def test_a_distance_of_just_0_4_is_not_far() -> None:
    similarity = np.array([[1, 3 / 5, 3 / 6], [3 / 5, 1, 0], [3 / 6, 0, 1]])
    found = _modes.leaders(np.array([5, 6, 7], np.int32), lambda i: similarity[i])
    assert found.tolist() == [5, 7]


# ---- the data themselves ----------------------------------------------------------------------


def _raw(name: str) -> bytes:
    assert DATA is not None
    (source,) = (s for d in DATA_SETS.values() for s in d.sources if s.name == name)
    return take(source, Path(DATA) / "raw")


@needs_data
def test_everything_is_there() -> None:
    assert {found.name: found.state for found in datasets.status()} == dict.fromkeys(
        DATA_SETS, "present"
    )
    assert datasets.load("qm9")["rewards"].shape == (161_051,)
    assert len(datasets.blocks("seh").smiles) == 18


@needs_data
def test_a_changed_byte_of_the_data_is_found(folder: Path) -> None:
    assert DATA is not None
    _ = shutil.copytree(Path(DATA) / "tfbind8", folder / "tfbind8")
    path = folder / "tfbind8" / "tfbind8.npz"
    rewards = datasets.load("tfbind8")["rewards"].copy()
    rewards[100] = np.nextafter(rewards[100], 1)
    np.savez(path, rewards=rewards, modes=datasets.load("tfbind8")["modes"])
    with pytest.raises(DataError, match=r"tfbind8.npz is damaged: didact data fetch tfbind8$"):
        datasets.load("tfbind8")
    states = {found.name: found.state for found in datasets.status()}
    assert states == {"qm9": "missing", "seh": "missing", "tfbind8": "damaged"}


@needs_data
def test_the_modes_of_the_tables_follow_from_their_values() -> None:
    qm9, tfbind8 = datasets.load("qm9"), datasets.load("tfbind8")
    np.testing.assert_array_equal(_modes.best(qm9["rewards"]), qm9["modes"])
    np.testing.assert_array_equal(_modes.far_apart(tfbind8["rewards"]), tfbind8["modes"])


@needs_data
@pytest.mark.slow
def test_the_modes_of_seh_are_far_apart() -> None:
    pytest.importorskip("rdkit")
    seh = datasets.load("seh")
    found = _modes.dissimilar(seh["top_0001"], datasets.blocks("seh"))
    np.testing.assert_array_equal(found, seh["modes"])


@needs_data
def test_the_published_file_of_the_modes_of_seh_is_a_set_of_strings() -> None:
    alphabet = datasets.blocks("seh").alphabet
    digits = _trees.digits_of(datasets.load("seh")["modes"], 18, 6)
    data = pickle.dumps({"".join(alphabet[d] for d in row) for row in digits}, 3)
    (source,) = (s for s in DATA_SETS["seh"].sources if not s.needed)
    assert len(data) == source.size  # its size is that of such a set of this protocol
    np.testing.assert_array_equal(
        _convert.published_strings(data, alphabet), datasets.load("seh")["modes"]
    )


@needs_raw
def test_tfbind8_is_fetched_from_a_folder(folder: Path) -> None:
    assert DATA is not None
    (found,) = datasets.fetch("tfbind8", source=Path(DATA) / "raw")
    assert found.state == "present"
    with np.load(Path(DATA) / "tfbind8" / "tfbind8.npz", allow_pickle=False) as reference:
        arrays = datasets.load("tfbind8")
        assert set(arrays) == set(reference)
        for name in reference:
            np.testing.assert_array_equal(arrays[name], reference[name], strict=True)
    assert [path.name for path in folder.rglob("*.npz")] == ["tfbind8.npz"]


@needs_raw
def test_tfbind8_is_fetched_from_a_server(server: Server, folder: Path) -> None:
    body = _raw("SIX6_REF_R1_8mers.txt")
    server.files, server.cut = {"/b/SIX6": body}, [PIECE * 200]
    known = DATA_SETS["tfbind8"]
    source = server.source("SIX6_REF_R1_8mers.txt", body, "/a/SIX6", "/b/SIX6")
    assert (source.size, source.sha256) == (known.sources[0].size, known.sources[0].sha256)
    data_sets = {"tfbind8": DataSet((source,), known.convert, known.layout)}
    (found,) = datasets._fetch.fetch("tfbind8", data_sets=data_sets)
    assert found.state == "present"
    assert server.asked[-1] == ("/b/SIX6", f"bytes={PIECE * 200}-")
    assert datasets.load("tfbind8")["rewards"].max() == 1


@needs_raw
def test_trees_and_blocks_of_seh_are_what_is_published() -> None:
    arrays = datasets.load("seh")
    trees = _convert.forest(_raw("sehstr_gbtr.pkl"))
    for name, array in trees.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)
    assert _convert.published_blocks(_raw("block_18.json")) == datasets.blocks("seh")
    assert _convert.published_blocks(_raw("block_qm9str_v1.json")) == datasets.blocks("qm9")


@needs_raw
@pytest.mark.slow
def test_qm9_is_fetched_from_a_folder(folder: Path) -> None:
    assert DATA is not None
    # Not in this process: here the types of two million small calls would be checked.
    fetch = "from didact import datasets; datasets.fetch('qm9', source=Path(sys.argv[1]) / 'raw')"
    command = [sys.executable, "-c", f"import sys; from pathlib import Path; {fetch}", DATA]
    subprocess.run(command, check=True)
    with np.load(Path(DATA) / "qm9str" / "qm9str.npz", allow_pickle=False) as reference:
        for name, array in datasets.load("qm9").items():
            np.testing.assert_array_equal(array, reference[name], strict=True)


@needs_raw
@pytest.mark.slow
def test_seh_is_fetched_from_a_folder(folder: Path) -> None:
    pytest.importorskip("rdkit")
    assert DATA is not None
    datasets.fetch("seh", source=Path(DATA) / "raw")
    arrays = datasets.load("seh")
    for file in ("sehstr_gbt.npz", "sehstr_modes.npz"):
        with np.load(Path(DATA) / "sehstr" / file, allow_pickle=False) as reference:
            for name in set(reference) & set(arrays):
                np.testing.assert_array_equal(arrays[name], reference[name], strict=True)
    assert json.loads((folder / "sehstr" / "blocks.json").read_text()) == json.loads(
        (Path(DATA) / "sehstr" / "blocks.json").read_text()
    )


@needs_raw
def test_without_rdkit_and_the_file_of_the_modes_one_line_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DATA is not None

    def none(*_: Any) -> None:
        raise ImportError("RDKit is not there: pip install 'didact[chem]'.")

    monkeypatch.setattr(_modes, "top_of_trees", lambda _: np.zeros(1, np.int32))
    monkeypatch.setattr(_modes, "dissimilar", none)
    with pytest.raises(DataError, match=r"without modes_tanimoto.*\[chem\]"):
        datasets.fetch("seh", source=Path(DATA) / "raw")
    assert not (folder / "sehstr").exists()
