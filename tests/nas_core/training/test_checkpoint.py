"""A training whose process is killed goes on from its checkpoint, and ends as if nothing had happened."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import torch as st

from nas_core.records.store import Store
from nas_core.training.checkpoint import pack, unpack

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from nas_core.training.settings import Recipe, TrainConfig
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.settings import ImageSettings
from tests.spaces import tiny
from nas_core.records.store import Store
from nas_core.training.winner import train_network

space = tiny()
recipe = Recipe(epochs=6, batch_size=32, ema_decay=0.9, augment="crop-flip-cutout")
train_network(
    space.architecture(space.parse("1-1-1")), TrainConfig(recipe=recipe, checkpoint_every_s=0.2),
    Digits(ImageSettings(validation_examples=300)), seed=1, device="cpu", store=Store(sys.argv[1]), name="w",
)
"""


def start(root) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(root)])


def wait_for(path, process, seconds=120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "the training ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("metadata", [None, {}, {"a": "b"}])
@pytest.mark.parametrize("tensors", [{}, {"x": torch.ones(2)}])
def test_what_is_packed_is_unpacked_also_where_nothing_is(tensors, metadata):
    found, texts = unpack(pack(tensors, metadata))
    assert found.keys() == tensors.keys()
    assert texts == (metadata or {})


@pytest.mark.parametrize("place", [-1, 0, 9, 30])
def test_a_file_that_was_changed_is_told(place):
    """Anywhere: a number that is another would be computed with, and nobody would know."""
    data = bytearray(pack({"x": torch.ones(200)}, {"a": "b"}))
    data[place] ^= 1
    for damaged in (data, data[: len(data) // 2]):
        with pytest.raises(ValueError, match=r"checksum|header|JSON|Key|metadata|deserializ"):
            unpack(bytes(damaged))


def test_a_file_of_another_program_has_no_checksum():
    assert torch.equal(unpack(st.save({"x": torch.ones(2)}))[0]["x"], torch.ones(2))


@pytest.mark.faults
def test_sigkill_loses_nothing_but_time(tmp_path):
    unbroken = start(tmp_path / "whole")
    process = start(tmp_path / "broken")
    wait_for(tmp_path / "broken" / "winner" / "w" / "checkpoint.safetensors", process)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "broken" / "winner" / "w" / "result.json").exists()
    assert start(tmp_path / "broken").wait() == 0
    assert unbroken.wait() == 0
    weights, results = [], []
    for name in ("whole", "broken"):
        store = Store(tmp_path / name)
        weights.append(store.read_bytes("winner/w/weights.safetensors"))
        results.append(json.loads(store.read_bytes("winner/w/result.json")))
        del results[-1]["wall_s"], results[-1]["examples_per_s"]
    assert weights[0] == weights[1]
    assert results[0] == results[1]


def test_tensors_that_share_memory_are_kept_each_by_itself():
    table = torch.arange(6.0)
    kept, _ = unpack(pack({"first.table": table, "second.table": table, "part": table[2:]}))
    assert torch.equal(kept["first.table"], table)
    assert torch.equal(kept["second.table"], table)
    assert torch.equal(kept["part"], table[2:])
