"""Files: digests, what a JSON text may be, and temporary files of writers that died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pyro_relevance import _files
from pyro_relevance._files import (
    digest_of_json,
    json_text,
    parse_json,
    read_safetensors,
    replacing,
    save_safetensors,
)

WRITER = """
import os, sys, time
from pathlib import Path
from pyro_relevance._files import replacing

with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
"""


def _names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


@pytest.mark.contract
def test_the_temporary_file_of_a_dead_writer_is_removed_by_the_next(tmp_path):
    path = tmp_path / "c.safetensors"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"begun\n"
        with replacing(path) as temporary:  # the other one is alive
            temporary.write_bytes(b"whole")
        assert len(_names(tmp_path)) == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
    with replacing(tmp_path / "other.safetensors") as temporary:
        temporary.write_bytes(b"whole")
    assert len(_names(tmp_path)) == 3  # not its file
    with replacing(path) as temporary:
        temporary.write_bytes(b"newer")
    assert _names(tmp_path) == ["c.safetensors", "other.safetensors"]
    assert path.read_bytes() == b"newer"


@pytest.mark.contract
def test_a_number_that_is_this_process_now_is_told_from_a_file_being_written(tmp_path):
    path = tmp_path / "c.txt"
    left = tmp_path / f".c-{_files._machine()}-{os.getpid()}-0123abcd.txt"
    left.write_bytes(b"of a process before")
    with replacing(path) as first:
        assert not left.exists()
        first.write_bytes(b"1")
        with replacing(path) as second:
            second.write_bytes(b"2")
        assert first.exists()
    assert path.read_bytes() == b"1"
    assert _names(tmp_path) == ["c.txt"]


@pytest.mark.contract
@pytest.mark.parametrize(
    "name", [".c-notes.txt", ".c-other1-1-0123abcd.txt", "c-1-0123abcd.txt", ".cc-0123abcd.txt"]
)
def test_other_files_stay(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with replacing(tmp_path / "c.txt") as temporary:
        temporary.write_bytes(b"1")
    assert _names(tmp_path) == sorted([name, "c.txt"])


@pytest.mark.contract
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200 + "]" * 200, "at most 150 levels"),
        ("[" * 100_000, "levels|Expecting"),
        ("[" + "0," * 2_000_001 + "0]", "at most 2,000,000 values"),
        ('{"a": 1, "a": 2}', "each name once"),
        (str(2**63), "64 bits"),
        ("9" * 5000, "digits"),
        ('"\\ud800"', "surrogates"),
        ('{"\\ud800": 1}', "surrogates"),
        ("", "Expecting value"),
    ],
)
def test_what_no_json_of_the_library_is(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


@pytest.mark.exact
def test_what_json_of_the_library_is():
    content = {"a": [1, 2.5, None, True, "ü", [[[]]]], "b": {"c": -(2**63)}}
    assert parse_json(json_text(content)) == content
    assert digest_of_json({"a": 1, "b": (2,)}) == digest_of_json({"b": [2], "a": 1})
    assert digest_of_json({"a": 1}) != digest_of_json({"a": 1.5})


@pytest.mark.exact
def test_a_digest_sees_names_types_shapes_numbers_and_texts(tmp_path):
    tensors = {"a": torch.tensor([1.0, float("inf")]), "b": torch.zeros(2, 3)}
    path = tmp_path / "file"
    save_safetensors(path, tensors, {"text": "t"})
    read, texts = read_safetensors(path)
    assert texts == {"text": "t"}
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    raw = _raw(path)
    for changed in (
        {**tensors, "b": torch.zeros(3, 2)},
        {**tensors, "b": torch.zeros(2, 3, dtype=torch.int32)},
        {**tensors, "b": torch.full((2, 3), 1e-30)},
        {"a": tensors["a"], "c": tensors["b"]},
    ):
        save_file(changed, path, metadata=raw)
        with pytest.raises(ValueError, match="does not fit its digest"):
            read_safetensors(path)
    for key in ("text", "schema", "non_finite", "digest"):
        save_file(tensors, path, metadata={n: t for n, t in raw.items() if n != key})
        with pytest.raises(ValueError, match="does not fit its digest"):
            read_safetensors(path)


@pytest.mark.contract
def test_numbers_that_were_finite_stay_finite(tmp_path):
    path, tensors = tmp_path / "file", {"a": torch.tensor([float("nan")])}
    save_safetensors(path, tensors, {})
    texts = {**_raw(path), "non_finite": "[]"}
    del texts["digest"]
    save_file(tensors, path, metadata={**texts, "digest": _files._digest(tensors, texts)})
    with pytest.raises(ValueError, match="'a' has numbers that are not finite"):
        read_safetensors(path)


@pytest.mark.contract
def test_a_layout_of_a_later_release_is_named(tmp_path):
    path = tmp_path / "file"
    texts = {"schema": "2", "non_finite": "[]"}
    save_file({}, path, metadata={**texts, "digest": _files._digest({}, texts)})
    with pytest.raises(ValueError, match="version '2' of the layout .* the release that wrote it"):
        read_safetensors(path)


@pytest.mark.contract
def test_an_unknown_type_of_tensor_is_refused(tmp_path):
    save_file({"a": torch.zeros(2).to(torch.float8_e5m2)}, tmp_path / "file")
    with pytest.raises(ValueError, match="'a' is of the unknown type F8_E5M2"):
        read_safetensors(tmp_path / "file")


def _raw(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return metadata
