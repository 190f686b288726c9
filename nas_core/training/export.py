"""A trained network as something to hand over: preparation included, no pickle, no code of ours needed to run it.

B = images of a batch, C = channels, H = height and W = width as stored, S =
the side that the network takes.
"""

import copy
import io
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nas_core.base.errors import NasError
from nas_core.base.silence import silence
from nas_core.workloads.images.decoding import Fitting
from nas_core.workloads.normalisation import FULL_BYTE, Normalisation, broadcast
from nas_core.workloads.workload import Splits, Workload

# What tells bytes from floats inside a program, which has one graph for every type: the half of a whole number is
# none, and twice 128 is 0 in eight bits.
HALF, OVERFLOWING = 0.5, 128
# torch's interpolations with antialiasing; what it lacks is done by the nearest kin
INTERPOLATIONS = {"nearest": "nearest-exact", "bicubic": "bicubic", "lanczos": "bicubic"}
AS_TENSORS = Fitting(fit="squash")  # how sets without a way of their own get another size (``tensors.resized``)
LARGEST_FRACTION = 2.0  # images beyond it are no fractions of full brightness, whatever interpolation adds
SPECIALISED = "You marked batch as dynamic but your code specialized it"  # torch's words
FIXES_BATCH = "a forward pass that fixes the number of examples: len(x), say, where x.shape[0] does not"
NO_FRACTIONS = "images as floats are fractions from 0 to 1 (or give bytes as uint8)"


class Deployed(nn.Module):
    """Preparation and network: takes inputs as floats (images in [0, 1]) or as uint8, gives outputs.

    Images are B C H W of any size, made square as ``fitting`` says, which is
    how the study made them; maps come out at the network's side. ``input_shape`` is that of one input of the network.
    ``scale`` is what the network's outputs are multiples of: here it is undone. Inputs that are no floats (``dtype``;
    words by their numbers, say) reach the network as they are. Floats that are not ``in_fractions`` are in the data's
    own units, and of any size.
    """

    mean: torch.Tensor
    std: torch.Tensor
    beside: torch.Tensor  # colour of what padding adds, as fractions

    def __init__(
        self,
        network: nn.Module,
        prepare: Normalisation,
        input_shape: tuple[int, ...],
        fitting: Fitting | None = None,
        scale: Normalisation | None = None,
        dtype: str = "float32",
        *,
        in_fractions: bool = True,
    ) -> None:
        super().__init__()
        self.scale, self.dtype, self.in_fractions = scale or Normalisation(), dtype, in_fractions
        self.network, self.input_shape, self.fitting = network, input_shape, fitting or AS_TENSORS
        num_axes = 1 + len(input_shape)
        self.register_buffer("mean", broadcast(torch.tensor(prepare.mean or (0.0,)), num_axes))
        self.register_buffer("std", broadcast(torch.tensor(prepare.std or (1.0,)), num_axes))
        self.register_buffer("beside", broadcast(_background(self.fitting, input_shape[0]), num_axes))

    @property
    def takes_images(self) -> bool:
        return len(self.input_shape) == 3

    @property
    def takes_floats(self) -> bool:
        kind: torch.dtype = getattr(torch, self.dtype)
        return kind.is_floating_point

    def example(self, count: int) -> torch.Tensor:
        """So many inputs of the network's own shape and type, of no meaning."""
        if self.takes_floats:
            return torch.rand(count, *self.input_shape)
        return torch.zeros(count, *self.input_shape, dtype=getattr(torch, self.dtype))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.takes_floats:
            return self.scale.undone(self.network(inputs))
        probe = torch.full_like(inputs.reshape(-1)[:1], HALF if self.takes_images else OVERFLOWING)
        are_bytes = probe * 2 == 0
        values = torch.ops.aten._to_copy.default(inputs, dtype=torch.float32)  # `float()` leaves no trace for floats
        full = torch.where(are_bytes, float(FULL_BYTE), 1.0)
        if self.takes_images:
            values = _squared(values, self.input_shape[-1], self.fitting, self.beside * full)
            values = torch.where(are_bytes, values.round().clamp(0, FULL_BYTE), values)
        if self.takes_images and self.in_fractions:
            torch._assert_async(are_bytes.logical_or(values.flatten().amax(0) <= LARGEST_FRACTION).all(), NO_FRACTIONS)
        return self.scale.undone(self.network((values / full - self.mean) / self.std))


def _background(fitting: Fitting, channels: int) -> torch.Tensor:
    """The colour beside padded images, one fraction per channel."""
    from PIL import ImageColor

    colour = ImageColor.getcolor(fitting.background, "RGB" if channels == 3 else "L")
    values = colour[:3] if isinstance(colour, tuple) else (colour,) * channels
    return torch.tensor(values, dtype=torch.float32) / FULL_BYTE


def _squared(images: torch.Tensor, side: int, fitting: Fitting, background: torch.Tensor) -> torch.Tensor:
    """Images B C H W as B C S S, as ``decoding.square`` makes one; no branch on the size, so a program takes any."""
    if not torch.compiler.is_exporting() and images.shape[-2:] == (side, side) and fitting.crop_pct == 1:
        return images
    scale, (height, width) = int(side / fitting.crop_pct), images.shape[-2:]
    new: tuple[Any, Any] = (scale, scale)  # of a program they are symbols
    if fitting.fit == "crop":
        shorter = _smaller(height, width)
        new = scale * height // shorter, scale * width // shorter
    elif fitting.fit == "pad":
        longer = _larger(height, width)
        new = (
            _larger(1, _rounded(scale * height, longer)),
            _larger(1, _rounded(scale * width, longer)),
        )
    mode = INTERPOLATIONS.get(fitting.interpolation, "bilinear")
    scaled = F.interpolate(images, size=new, mode=mode, antialias=mode != "nearest-exact")
    rows, columns = (_middle(length, side, images.device) for length in new)
    lines: torch.Tensor = scaled.index_select(-2, rows.clamp(0, new[0] - 1))
    middle = lines.index_select(-1, columns.clamp(0, new[1] - 1))
    if fitting.fit != "pad":
        return middle
    rows_SS, columns_SS = rows[:, None], columns[None, :]
    inside = (rows_SS >= 0) & (rows_SS < new[0]) & (columns_SS >= 0) & (columns_SS < new[1])
    padded: torch.Tensor = torch.where(inside, middle, background)
    return padded


def _middle(length: Any, side: int, device: torch.device) -> torch.Tensor:
    """Which lines of a length are in its middle of ``side``; of a shorter one there are some before and after it."""
    over = _larger(length - side, 0)
    start = _rounded(over, 2) - _larger(side - length, 0) // 2
    lines: torch.Tensor = torch.arange(side, device=device) + start
    return lines


def _smaller(one: Any, other: Any) -> Any:
    return torch.sym_min(one, other)  # type: ignore[no-untyped-call]


def _larger(one: Any, other: Any) -> Any:
    return torch.sym_max(one, other)  # type: ignore[no-untyped-call]


def _rounded(above: Any, below: Any) -> Any:
    """The fraction as a whole number, halves to even; of symbols, too, which have no `round`."""
    twice = 2 * above + below
    nearest = twice // (2 * below)
    is_half = 1 - _smaller(twice % (2 * below), 1)
    return nearest - is_half * (nearest % 2)


def deployed(
    network: nn.Module,
    prepare: Normalisation,
    input_shape: tuple[int, ...],
    fitting: Fitting | None = None,
    scale: Normalisation | None = None,
    dtype: str = "float32",
    *,
    in_fractions: bool = True,
) -> Deployed:
    """A copy of the network for use anywhere: on the CPU, in eval mode, with its preparation."""
    plain = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module = Deployed(plain, prepare, input_shape, fitting, scale, dtype, in_fractions=in_fractions)
    module.eval()
    return module


def deployed_for(workload: Workload, network: nn.Module, splits: Splits, input_shape: tuple[int, ...]) -> Deployed:
    """``deployed``, with inputs prepared as the workload's are."""
    fitting, dtype = getattr(workload, "fitting", None), workload.sample.dtype
    inputs = splits.train[0]
    is_bytes = isinstance(inputs, torch.Tensor) and inputs.dtype == torch.uint8  # of them, floats are fractions, too
    units = {"in_fractions": workload.in_fractions or is_bytes}
    return deployed(network, splits.prepare, input_shape, fitting, workload.output_scale, dtype, **units)


def exported_bytes(module: Deployed) -> bytes:
    """The module as a .pt2 program for any batch size, images of any size, floats and uint8.

    Raises:
        NasError: if torch cannot follow the network: it branches on values, say.
    """
    shapes: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    example = module.example(2)  # a batch of 1 would be taken for a constant
    if module.takes_images:
        channels, height, width = module.input_shape
        example = torch.zeros(2, channels, height + 8, width + 16)  # so would a square, or the network's own size
        shapes |= {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}
    try:
        with silence(logs=True):  # it prints whole graphs
            program = torch.export.export(module, (example,), dynamic_shapes={"inputs": shapes})
    except Exception as error:  # of a user's own code; torch's own errors have no class in common
        text = " ".join(str(error).split())
        said = FIXES_BATCH if SPECIALISED in text else f"{type(error).__name__}: {text[:200]}"
        raise NasError("model.pt2", said, "a network that torch.export can follow") from None
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def load_exported(data: bytes) -> nn.Module:
    """The program in a .pt2 file, ready to call."""
    return torch.export.load(io.BytesIO(data)).module()
