"""Files of each format: what is written is read again, and what cannot be is named."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.parquet import write_table

from trimtab_client import InvalidArgumentError, Placement
from trimtab_tools import formats
from trimtab_tools.formats import SavedPlacement, read_load, read_placement, write_placement

LAYERS, EXPERTS, SLOTS, GPUS = 3, 5, 8, 4
PLACEMENT = Placement.of(np.tile(np.arange(SLOTS) % EXPERTS, (LAYERS, 1)), EXPERTS, GPUS)
TRACE = np.random.default_rng(0).integers(0, 1000, (2, LAYERS, EXPERTS))
LOAD = TRACE[0]


def saved(placement: Placement = PLACEMENT, first_layer: int = 0) -> SavedPlacement:
    document = json.dumps({"placement": {"phy2log": placement.phy2log.tolist()}})
    return SavedPlacement(placement, document, {"more": np.ones(2)}, first_layer)


ENDS = {
    "npz": [".npz"],
    "npy": [".npy"],
    "json": [".json"],
    "csv": [".csv"],
    "parquet": [".parquet"],
    "sglang": [".pt", ".json"],
    "vllm-ascend": [".json"],
    "tensorrt-llm": [".yaml", ".yml"],
}
EACH = [(name, end) for name, ends in ENDS.items() for end in ends]


def test_all_formats_are_tried_here():
    assert tuple(ENDS) == formats.FORMATS


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.data())
def test_a_placement_is_read_as_it_was_written(tmp_path_factory, layers, gpus, slots, data):
    folder = tmp_path_factory.mktemp("placements")
    experts = data.draw(st.integers(slots, gpus * slots))
    # Each GPU has different experts, as vllm-ascend asks for.
    rows = [
        np.concatenate([np.roll(np.arange(experts), -turn)[:slots] for turn in turns])
        for turns in data.draw(
            st.lists(
                st.permutations([gpu * slots for gpu in range(gpus)]),
                min_size=layers,
                max_size=layers,
            )
        )
    ]
    placement = Placement.of(np.array(rows), experts, gpus)
    for name, end in EACH:
        path = folder / f"{name}{end}"
        write_placement(saved(placement), path, name)
        for given_name in (name, None):  # by its content alone, too
            read = read_placement(path, given_name)
            assert read.tolist() == placement.phy2log.tolist(), (name, end)


def test_a_name_without_a_known_end_needs_a_format(tmp_path):
    for name, (end, *_) in ENDS.items():
        path = tmp_path / f"{name}.placement"
        with pytest.raises(InvalidArgumentError, match=r"ends in none of \.npz.*by --format"):
            write_placement(saved(), path)
        write_placement(saved(), path, name)
        assert read_placement(path, name).tolist() == PLACEMENT.phy2log.tolist(), end


def test_layers_have_their_numbers_in_the_model(tmp_path):
    """Golden cases: what the engines' documents ask for, for a model whose first layer is dense."""
    yaml_path, map_path, csv_path = (tmp_path / f"p.{end}" for end in ("yaml", "json", "csv"))
    write_placement(saved(first_layer=1), yaml_path)
    assert yaml.safe_load(yaml_path.read_text()) == {
        "num_slots": SLOTS,
        "initial_global_assignments": {
            layer: PLACEMENT.phy2log[layer - 1].tolist() for layer in (1, 2, 3)
        },
        "layer_updates_per_iter": 0,
    }
    write_placement(saved(first_layer=1), map_path, "sglang")
    rows = json.loads(map_path.read_text())
    assert list(rows) == ["physical_to_logical_map"]
    assert rows["physical_to_logical_map"][1:] == PLACEMENT.phy2log.tolist()
    assert sorted(set(rows["physical_to_logical_map"][0])) == list(range(EXPERTS))
    write_placement(saved(first_layer=1), csv_path)
    assert csv_path.read_text().splitlines()[:2] == ["layer,slot,expert", "1,0,0"]


def test_what_vllm_ascend_reads_is_written(tmp_path):
    path = tmp_path / "map.json"
    write_placement(saved(), path, "vllm-ascend")
    document = json.loads(path.read_text())
    assert document["moe_layer_count"] == LAYERS
    assert document["layer_list"][2] == {
        "layer_id": 2,
        "device_count": GPUS,
        "device_list": [
            {
                "device_id": gpu,
                "device_expert": PLACEMENT.phy2log[2, 2 * gpu : 2 * gpu + 2].tolist(),
            }
            for gpu in range(GPUS)
        ],
    }


def test_an_expert_twice_on_a_device_is_refused_for_vllm_ascend(tmp_path):
    twice = Placement.of([[0, 1, 2, 2, 3, 4]], 5, 3)
    complaint = "expert 2 is twice on GPU 1 in layer 0, and vllm-ascend would lose a slot"
    with pytest.raises(InvalidArgumentError, match=complaint):
        write_placement(saved(twice), tmp_path / "map.json", "vllm-ascend")
    assert not (tmp_path / "map.json").exists()


def tidy(load_TLE: np.ndarray, **more: int) -> dict[str, np.ndarray]:
    window, layer, expert = np.indices(load_TLE.shape).reshape(3, -1)
    columns = {"window": window, "layer": layer, "expert": expert, "load": load_TLE.ravel()}
    return {name: column + more.get(name, 0) for name, column in columns.items()}


def write_load(path: Path, load: np.ndarray) -> Path:
    """A load or a trace, in a file of the kind that its name says."""
    match path.suffix:
        case ".npz":
            np.savez(path, load=load)
        case ".npy":
            np.save(path, load)
        case ".json":
            path.write_text(json.dumps({"load": load.tolist()}))
        case ".pt":
            torch.save({"logical_count": torch.from_numpy(load)}, path)
        case ".parquet":
            columns = tidy(load.reshape(-1, LAYERS, EXPERTS))
            if load.ndim == 2:
                del columns["window"]
            write_table(pa.table(columns), path)
        case ".csv":
            columns = tidy(load.reshape(-1, LAYERS, EXPERTS))
            if load.ndim == 2:
                del columns["window"]
            rows = [columns, *zip(*columns.values(), strict=True)]
            path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    return path


@pytest.mark.parametrize("end", [".npz", ".npy", ".json", ".pt", ".parquet", ".csv"])
@pytest.mark.parametrize("load", [LOAD, TRACE], ids=["one", "trace"])
def test_a_load_is_read(tmp_path, end, load):
    read = read_load(write_load(tmp_path / f"load{end}", load))
    assert read.tolist() == load.tolist()
    assert read.dtype == np.int64


def test_a_table_may_begin_with_any_layer_and_have_any_order(tmp_path):
    path = tmp_path / "load.csv"
    path.write_text("model, expert, layer, tokens\n\nm,1,4,2.5\nm,0,3,1\nm,1,3,0\nm,0,4,7\n")
    assert read_load(path, key="tokens").tolist() == [[1, 0], [7, 2.5]]


def test_a_table_as_excel_saves_it_is_read(tmp_path):
    path = tmp_path / "load.csv"
    path.write_text("layer,expert,load\n0,0,5\n0,1,6\n", encoding="utf-8-sig")
    assert read_load(path).tolist() == [[5, 6]]


def test_a_table_without_names_is_one_load(tmp_path):
    path = tmp_path / "load.csv"
    np.savetxt(path, LOAD, "%d", delimiter=",")
    assert read_load(path).tolist() == LOAD.tolist()


def test_a_ring_of_sglang_is_one_load_and_no_trace(tmp_path):
    """Unfilled rows are 0, and the others are in no order of time. Narrow counts do not wrap."""
    ring = torch.zeros((4, LAYERS, EXPERTS), dtype=torch.int32)
    ring[[2, 0]] = torch.from_numpy(TRACE).int()
    ring[1, 0, 0] = 2**31 - 1
    dump = {"rank": 0, "logical_count": ring, "average_utilization_rate_over_window": None}
    torch.save(dump, tmp_path / "dump.pt")
    read = read_load(tmp_path / "dump.pt")
    assert read.tolist() == ring.long().sum(0).tolist()


def test_passes_of_sglang_are_a_trace_of_the_rank_that_wrote_it(tmp_path):
    phy2log = torch.tensor([[0, 1, 2, 1], [2, 1, 0, 0]])
    counts = torch.arange(16, dtype=torch.int32).reshape(2, 2, 4)
    records = [
        {"forward_pass_id": 9, "rank": 1, "gatherer_key": "a", "global_physical_count": counts[0]},
        {"forward_pass_id": 8, "rank": 1, "gatherer_key": "a", "global_physical_count": counts[1]},
        {"forward_pass_id": 9, "rank": 1, "gatherer_key": "b", "global_physical_count": counts[0]},
    ]
    dump = {"records": records, "last_physical_to_logical_map": phy2log}
    torch.save(dump, tmp_path / "dump.pt")
    read = read_load(tmp_path / "dump.pt")
    assert read.tolist() == [
        [[8, 9 + 11, 10], [14 + 15, 13, 12]],
        [[0, 2 * (1 + 3), 2 * 2], [2 * (6 + 7), 2 * 5, 2 * 4]],
    ]
    assert read_placement(tmp_path / "dump.pt").tolist() == phy2log.tolist()


def test_a_file_of_ones_own_is_read_whatever_else_is_in_it(tmp_path):
    """Names of engines' files in it change nothing."""
    np.savez(tmp_path / "a.npz", load=LOAD, num_slots=4, logical_count=LOAD + 1)
    names = {"load": LOAD.tolist(), "num_slots": 4, "physical_to_logical_map": [[0]]}
    (tmp_path / "a.json").write_text(json.dumps(names))
    for name in ("a.npz", "a.json"):
        assert read_load(tmp_path / name).tolist() == LOAD.tolist()


def test_an_array_that_cannot_be_read_safely_hides_no_other(tmp_path):
    np.savez(tmp_path / "a.npz", load=LOAD, about=np.array(["made today", None], object))
    assert read_load(tmp_path / "a.npz").tolist() == LOAD.tolist()
    with pytest.raises(InvalidArgumentError, match="about is not an array of numbers"):
        read_load(tmp_path / "a.npz", key="about")


def test_precise_numbers_of_torch_stay_precise(tmp_path):
    load = torch.full((2, 3), 2.0**24 + 1, dtype=torch.float64)
    torch.save({"logical_count": load, "bfloat": load.bfloat16()}, tmp_path / "a.pt")
    assert read_load(tmp_path / "a.pt").tolist() == load.tolist()
    assert read_load(tmp_path / "a.pt", key="bfloat").tolist() == [[2.0**24] * 3] * 2


def test_damaged_files_are_refused_by_name(tmp_path):
    """Whatever the libraries that read them raise."""
    rng = np.random.default_rng(0)
    for end in (".npz", ".npy", ".pt", ".parquet"):
        whole = write_load(tmp_path / f"whole{end}", LOAD).read_bytes()
        path = tmp_path / f"damaged{end}"
        for _ in range(60):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 4):
                damaged[at] = int(rng.integers(256))
            path.write_bytes(damaged[: int(rng.integers(1, len(whole) + 1))])
            try:
                read_load(path)
            except InvalidArgumentError as refused:
                assert str(path) in str(refused)  # noqa: PT017 - some damage does not matter


def test_a_placement_that_cannot_be_written_leaves_the_old_one(tmp_path):
    twice = saved(Placement.of([[0, 1, 2, 2, 3, 4]], 5, 3))
    path = tmp_path / "map.json"
    write_placement(saved(), path, "vllm-ascend")
    before = path.read_bytes()
    with pytest.raises(InvalidArgumentError):
        write_placement(twice, path, "vllm-ascend")
    npz = tmp_path / "map.npz"
    write_placement(saved(), npz)
    kept = npz.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_placement(saved(), npz)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (path.read_bytes(), npz.read_bytes()) == (before, kept)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["map.json", "map.npz"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "now.npz").symlink_to("placement-7.npz")
    write_placement(saved(), tmp_path / "now.npz")
    assert (tmp_path / "now.npz").is_symlink()
    assert read_placement(tmp_path / "placement-7.npz").tolist() == PLACEMENT.phy2log.tolist()


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(pipe.read_text)
        write_placement(saved(), pipe)
        assert json.loads(reading.result()) == json.loads(saved().document)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_no_code_of_a_file_runs(tmp_path):
    trap = Trap(tmp_path / "sprung")
    torch.save({"logical_count": trap}, tmp_path / "load.pt")
    np.savez(tmp_path / "load.npz", load=np.array([trap], object))
    np.save(tmp_path / "load.npy", np.array([trap], object))
    (tmp_path / "load.yaml").write_text(f"num_slots: !!python/object/apply:str [{tmp_path}]")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(trap, protocol=2))
    for name in ("load.pt", "load.npz", "load.npy", "load.yaml", "pickle.pt"):
        with pytest.raises(InvalidArgumentError) as refused:
            read_load(tmp_path / name)
        assert name in str(refused.value)
    assert not trap.path.exists()


def assert_refused(read, path: Path, content: bytes, complaint: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=complaint) as refused:
        read(path)
    assert str(path) in str(refused.value)


def torch_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.npz", b"PK", "is not an .npz file of plain arrays"),
        ("a.npy", b"", "is not an .npy file of plain numbers"),
        ("a.json", b"[1, ", "is not JSON"),
        ("a.json", b"\xff", "is not JSON"),
        ("a.json", b'"text"', "the load is not an array of numbers"),
        ("a.json", b'{"load": [[1, 2], [3]]}', r"load\[1\]: has 1 entries, but the first"),
        ("a.json", b'{"counts": [[1]], "when": 3}', "holds no 'load', but counts, when"),
        ("a.json", b'{"logical_count": [[[[1]]]]}', r"the load is \[1, 1, 1, 1\], not \[layers"),
        ("a.json", b'{"layer_list": []}', "of the format vllm-ascend, which holds placements"),
        ("a.json", b"[]", r"the load is \[0\], not"),
        ("a.yaml", b"num_slots: 8", "of the format tensorrt-llm, which holds placements, not"),
        ("a.yaml", b"a: [", "is not YAML"),
        ("a.pt", b"no", "is not a file of torch.save|holds more than tensors"),
        ("a.pt", torch_bytes({"counts": 1}), "holds no 'logical_count', but counts"),
        ("a.pt", torch_bytes(torch.ones(2, 2)), "has no names, such as 'logical_count'"),
        ("a.pt", torch_bytes({"records": [], "last_physical_to_logical_map": 1}), "nothing was"),
        (
            "a.pt",
            torch_bytes(
                {
                    "records": [{"global_physical_count": torch.ones(1, 3)}],
                    "last_physical_to_logical_map": torch.ones(1, 4).int(),
                }
            ),
            r"records\[0\].global_physical_count is \[1, 3\], but last_.* is \[1, 4\]",
        ),
        ("a.parquet", b"PAR1", "is not a Parquet file"),
        ("a.csv", b"", "has no rows"),
        ("a.csv", b"1,2\n3\n", "row 2 has 1 numbers, not 2"),
        ("a.csv", b"1,2\n3,x\n", "row 2, column 2: 'x' is not a number"),
        ("a.csv", b"layer,expert,load\n1,0,3\n1,1,\n", r'load\[1\]: "" is not a number'),
        ("a.json", b"[[1, 2], [null, 4]]", r"load\[1, 0\]: null is not a number"),
        ("a.json", b'{"load": [[[1, 2]], [[3, null]]]}', r"load\[1, 0, 1\]: null is not a number"),
        ("a.json", b'{"load": [[1, "2"]]}', r'load\[0, 1\]: "2" is not a number'),
        ("a.json", b"[[true, false]]", r"load\[0, 0\]: true is not a number"),
        ("a.json", b"[[1, 2], 3]", r"load\[1\]: 3 is not a list of 2"),
        ("a.json", b"[[1, 2], [3, [4]]]", r"load\[1, 1\]: \[4\] is not a number"),
        ("a.json", b"[[[1], [2, 3]]]", r"load\[0, 1\]: has 2 entries, but the first one .* has 1"),
        ("a.json", b"[[1, 1180591620717411303424]]", r"load\[0, 1\]: 1180\d+ is beyond int64"),
        ("a.json", b"[null]", r"load\[0\]: null is not a number"),
        (
            "a.json",
            b'{"logical_count": [[0, null]]}',
            r"logical_count\[0, 1\]: null is not a number",
        ),
        ("a.csv", b"layer,expert,load\n", "has no rows"),
        ("a.csv", b"layer,expert,tokens\n1,2,3\n", "holds no 'load', but layer, expert, tokens"),
        ("a.csv", b"layer,load\n1,2\n", "holds no 'expert', but layer, load"),
        ("a.csv", b"layer,expert,load\n1,-2,3\n", "expert is not a column of integers >= 0"),
        ("a.csv", b"layer,expert,load\n1,0.5,3\n", "expert is not a column of integers >= 0"),
        ("a.csv", b"layer,expert,load\n1,0,3\n1,0,4\n", "2 rows for 1 x 1 layers x experts"),
        ("a.csv", b"layer,expert,load\n1,1,3\n", "1 rows, not one for each of 1 x 2 layers x exp"),
        ("a.csv", b"layer,expert,load\n1,0,3\n3,0,3\n", "not one for each of 3 x 1 layers"),
        (
            "a.csv",
            b"layer,expert,load\n4,0,3\n4,0,4\n4,2,3\n",
            "no row for layer 4, expert 1, and two for another",
        ),
        ("a.csv", b"layer,expert,load\n1,9999999999,3\n", "1 x 10000000000 layers x experts"),
        ("a.csv", b"layer,expert,load,load\n1,0,3,4\n", "has 2 columns 'load'"),
        ("a.csv", b"0,1,2\n5,6,7\n", "begins with 0, 1, 2, …, which looks like a header"),
        ("a.csv", b"layer,expert,load\n1,0,some\n", r'load\[0\]: "some" is not a number'),
        ("a.csv", "läyer,expert,load\n1,0,3\n".encode("latin-1"), "is damaged, or no .csv file"),
        ("a.npz", b"", "a.npz: "),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9)",
            "a.npy: ",
        ),
        ("a.json", b"[" * 100_000, "is damaged, or no .json file"),
        ("a.json", b'{"layer_list": 3}', "of the format vllm-ascend"),
    ],
)
def test_a_file_that_is_nearly_right_says_what_it_has(tmp_path, name, content, complaint):
    assert_refused(read_load, tmp_path / name, content, complaint)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", b'{"placement": {"slots": 1}}', "holds no 'phy2log', but slots"),
        ("a.json", b'{"logical_count": [[1]]}', "holds no 'physical_to_logical_map', but logical"),
        ("a.json", b"[[[1]]]", r"the placement is \[1, 1, 1\], not \[layers, slots\]"),
        (
            "a.json",
            b'{"layer_list": [{"device_list": [{"device_expert": 1}, {"device_expert": 2}]}]}',
            "devices do not all have the same number",
        ),
        ("a.json", b'{"layer_list": [{"devices": []}]}', "holds no 'device_list', but devices"),
        ("a.yaml", b"num_slots: 8", "holds no 'initial_global_assignments', but num_slots"),
        (
            "a.yaml",
            b"num_slots: 3\ninitial_global_assignments: {0: [1, 2]}",
            r"initial_global_assignments is \[1, 2\], but num_slots is 3",
        ),
        ("a.yaml", b"initial_global_assignments: 3", "is not a list of experts by the number of"),
        ("a.yaml", b'initial_global_assignments: {"9": [0], "10": [0]}', "by the number of each"),
        (
            "a.yaml",
            b"initial_global_assignments: {0: [[0], [0]]}",
            "layer 0, slot 0: list is not an",
        ),
        (
            "a.yaml",
            b"initial_global_assignments: {7: [0, null]}",
            "layer 7, slot 1: None is",
        ),
        ("a.json", b'{"phy2log": [[0, 1], [1, null]]}', r"phy2log\[1, 1\]: null is not a number"),
        ("a.json", b'{"phy2log": [[0, 1], [1]]}', r"phy2log\[1\]: has 1 entries, but the first"),
        ("a.json", b"[[0, 1.5]]", r"phy2log\[0, 1\]: 1.5 is not an integer"),
        ("a.json", b"[[0, NaN]]", r"phy2log\[0, 1\]: nan is not an integer"),
        ("a.json", b"[[0.0, 1.0]]", r"phy2log\[0, 0\]: 0.0 is not an integer"),
        (
            "a.json",
            b'{"layer_list": [{"device_list": [{"device_expert": [null]}]}]}',
            r"device_expert\[0, 0, 0\]: null is not a number",
        ),
        ("a.csv", b"layer,slot,expert\n3,0,1\n3,2,1\n", "2 rows, not one for each of 1 x 3 layers"),
        ("a.csv", b"layer,slot,expert\n0,268435454,1\n", "not one for each of 1 x 268435455"),
        ("a.json", b'{"layer_list": 3}', "is damaged, or no .json file"),
    ],
)
def test_a_placement_that_is_nearly_right_says_what_it_has(tmp_path, name, content, complaint):
    assert_refused(read_placement, tmp_path / name, content, complaint)


@pytest.mark.parametrize(
    ("library", "end", "extra"), [("torch", ".pt", "server"), ("pyarrow", ".parquet", "parquet")]
)
def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, library, end, extra):
    for name in [each for each in sys.modules if each.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    complaint = rf"needs {library}: pip install 'trimtab-tools\[{extra}\]'"
    for call in (lambda path: write_placement(saved(), path), read_load):
        with pytest.raises(InvalidArgumentError, match=complaint):
            call(tmp_path / f"file{end}")
