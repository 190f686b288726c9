"""Inputs that are in no device's memory behave as a tensor does, a batch at a time."""

import torch

from nas_core.workloads.examples import OnHost, batches_of, expect, placed

INPUTS = torch.arange(60, dtype=torch.uint8).reshape(10, 6)


def test_a_batch_and_a_slice_are_those_of_the_tensor():
    held = OnHost(INPUTS, "cpu")
    index = torch.tensor([7, 1, 1])
    assert (len(held), held.shape) == (10, (10, 6))
    assert torch.equal(held[index], INPUTS[index])
    assert torch.equal(held[2:9][index - 1], INPUTS[2:9][index - 1])
    assert len(held[8:3]) == len(INPUTS[8:3]) == 0
    assert len(held[:-4]) == 6


def test_batches_are_the_same_in_order_from_both():
    for held in (OnHost(INPUTS, "cpu"), OnHost(INPUTS, "cpu").to("cpu"), placed(INPUTS, "cpu")):
        expect(held, [torch.tensor([0])])  # is not asked for: changes nothing
        assert [len(batch) for batch in batches_of(held, 4)] == [4, 4, 2]
        assert torch.equal(torch.cat(list(batches_of(held, 3))), INPUTS)


def test_on_a_cpu_nothing_is_copied():
    assert placed(INPUTS, "cpu").data_ptr() == INPUTS.data_ptr()
