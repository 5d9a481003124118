"""Small networks of the kinds that people have, each with inputs of two sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune


@dataclass(frozen=True)
class Kind:
    """A network, the shapes of an example and of other inputs, and what is expected.

    Args:
        make: Makes the network.
        shapes: Of the example, and of other inputs that the network accepts.
        groups: Names of the groups of units that are offered.
        tokens: Number of different tokens, where inputs are whole numbers.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    groups: tuple[str, ...]
    tokens: int = 0

    def example(self, position: int = 0) -> Tensor:
        """Return inputs of one of the shapes."""
        shape = self.shapes[position]
        return torch.randint(self.tokens, shape) if self.tokens else torch.randn(shape)


KINDS: dict[str, Kind] = {}
IMAGES = ((2, 3, 8, 8), (3, 3, 11, 9), (1, 3, 8, 8))
SEQUENCES = ((2, 5, 8), (3, 7, 8), (1, 5, 8))
ROWS = ((3, 8), (1, 8))
TOKENS = ((2, 5), (3, 7), (1, 5))


def kind(shapes, *groups, tokens=0):
    def add(cls):
        KINDS[cls.__name__] = Kind(cls, shapes, groups, tokens)
        return cls

    return add


class Images(nn.Module):
    """A stem, and a classifier of the mean over pixels."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(F.relu(self.stem(x))).mean((2, 3)))


@kind(IMAGES, "stem.units")
class NumberOfExamples(Images):
    """The number of examples is asked as the length of the input."""

    def forward(self, x):
        h = F.relu(self.stem(x))
        h = torch.cat([h[:, 5:], h[:, :5]], 1)
        return self.head(h.mean((2, 3)).view(len(x), -1))


@kind(IMAGES, "stem.units", "one.units")
class SplitScaled(Images):
    """Channels are split by number, and the image size is used as a number."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x):
        a, b = F.relu(self.stem(x)).split([2, 6], 1)
        h = torch.cat([self.one(a), b[:, 1:]], 1)
        h = h[:, :, : h.shape[2] // 2 + 1] * (h.shape[2] * h.shape[3]) ** 0.5
        return self.head(h.mean((2, 3)) + h[:, :, h.shape[2] // 2, -1])


@kind(IMAGES, "stem.units")
class ConvGRU(Images):
    """A state of zeros, which the convolutions read in the first step."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(16, 16, 3, padding=1)
        self.update = nn.Conv2d(16, 8, 3, padding=1)

    def body(self, x):
        state = torch.zeros_like(x)
        for _ in range(2):
            z, r = torch.sigmoid(self.gate(torch.cat([x, state], 1))).chunk(2, 1)
            new = torch.tanh(self.update(torch.cat([x, r * state], 1)))
            state = (1 - z) * state + z * new
        return state


@kind(IMAGES, "stem.units", "paths.0.units", "reduce.units")
class SelectiveKernel(Images):
    """Attention over two paths."""

    def __init__(self):
        super().__init__()
        self.paths = nn.ModuleList(nn.Conv2d(8, 8, k, padding=k // 2) for k in (3, 5))
        self.reduce, self.select = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 16, 1)

    def body(self, x):
        y = torch.stack([path(x) for path in self.paths], 1)
        chosen = self.select(F.relu(self.reduce(y.sum(1).mean((2, 3), keepdim=True))))
        n, c, h, w = chosen.shape
        return (y * chosen.view(n, 2, c // 2, h, w).softmax(1)).sum(1)


class NormAndActivation(nn.BatchNorm2d):
    """A subclass whose forward does more than its base class."""

    def forward(self, x):
        return F.gelu(super().forward(x) + 1.0)


@kind(IMAGES, "stem.units", "narrow.units")
class PartialSumInPlace(Images):
    """A residual of fewer channels, which is added in place."""

    def __init__(self):
        super().__init__()
        self.wide, self.norm = nn.Conv2d(8, 12, 3, padding=1), NormAndActivation(12)
        self.narrow = nn.Conv2d(12, 8, 1)

    def body(self, x):
        y = self.norm(self.wide(x))
        y[:, 0:8] += x
        return self.narrow(y)


@kind(SEQUENCES, "encoder.layers.0.self_attn.units", "encoder.layers.0.linear1.units")
class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 4, 12, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Conv1D(nn.Module):
    """A layer with the weight of GPT-2: columns make units."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        size = (*x.size()[:-1], self.weight.shape[1])
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


@kind(TOKENS, "embedding.units", "attention.units", "expand.units", tokens=10)
class Decoder(nn.Module):
    """A block of GPT-2 without normalisation; embedding and output share their weight."""

    def __init__(self):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(10, 8), nn.Embedding(16, 8)
        self.attention, self.project = Conv1D(24, 8), Conv1D(8, 8)
        self.expand, self.shrink = Conv1D(12, 8), Conv1D(8, 12)
        self.decoder = nn.Linear(8, 10, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens):
        n, length = tokens.shape
        x = self.embedding(tokens) + self.positions(torch.arange(length, device=tokens.device))
        q, k, v = self.attention(x).view(n, length, 3, 4, 2).permute(2, 0, 3, 1, 4)
        future = torch.triu(torch.full((length, length), float("-inf")), 1)
        scores = (q @ k.transpose(-1, -2) + future).softmax(-1)
        x = x + self.project((scores @ v).transpose(1, 2).reshape(n, length, 8))
        return self.decoder(x + self.shrink(F.gelu(self.expand(x))))


@kind(SEQUENCES, "enter.units", "to_all.units")
class BiasPerHead(nn.Module):
    """Attention of five positions with a parameter for each head and distance."""

    def __init__(self):
        super().__init__()
        self.enter, self.to_all = nn.Linear(8, 8), nn.Linear(8, 24)
        self.leave, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.bias = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        x = self.enter(x)
        n, length, _ = x.shape
        q, k, v = self.to_all(x).view(n, length, 3, 4, 2).permute(2, 0, 3, 1, 4)
        place = torch.arange(length, device=x.device)
        distance = (place[:, None] - place).abs() % 5
        scores = q @ k.transpose(-1, -2) + self.bias[distance].permute(2, 0, 1)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, 8)
        return self.head((x + self.leave(mixed)).mean(1))


@kind(SEQUENCES, "enter.units", "attention.out_proj.units", "last.units")
class CrossAttention(nn.Module):
    """Learned queries read a sequence."""

    def __init__(self):
        super().__init__()
        self.enter, self.queries = nn.Linear(8, 8), nn.Parameter(torch.randn(1, 4, 8))
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
        self.last, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.enter(x)
        read = self.attention(self.queries.expand(len(x), -1, -1), x, x)[0]
        return self.head(F.relu(self.last(read))).mean(1)


@kind(TOKENS, "embedding.units", "recurrent.units", "last.units", tokens=10)
class TwoLSTMs(nn.Module):
    """Two layers in both directions, between a table and a classifier."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.recurrent = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.last, self.head = nn.Linear(10, 5), nn.Linear(5, 3)

    def forward(self, tokens):
        outputs, (state, cell) = self.recurrent(self.embedding(tokens))
        last = outputs[:, -1] + torch.cat([state[-2] * cell[0], state[-1]], 1)
        return self.head(F.relu(self.last(last)))


@kind(SEQUENCES, "recurrent.weight_ih_l0.units", "recurrent.weight_hr_l0.units")
class ProjectedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(8, 6, proj_size=4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.recurrent(x)[0].mean(1))


@kind(SEQUENCES, "recurrent.units", "cell.units")
class GRUs(nn.Module):
    """A module over time, and a cell with a loop of its own."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.cell = nn.GRU(8, 6, batch_first=True), nn.GRUCell(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        outputs, state = self.recurrent(x)[0], None
        for step in range(3):
            state = self.cell(outputs[:, step], state)
        return self.head(state)


@kind(ROWS, "enter.units", "last.units")
class SharedByNames(nn.Module):
    """Two layers of one weight, and one module under two names."""

    def __init__(self):
        super().__init__()
        self.enter, self.one, self.two = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight, self.again = self.one.weight, self.one
        self.last, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = F.relu(self.two(F.relu(self.one(F.relu(self.enter(x))))))
        return self.head(F.relu(self.last(self.again(x))))


@kind(ROWS, "first.units")
class OtherForms(nn.Module):
    """In-place and joined forms of functions, an assertion, functional GLU, keywords."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 12), nn.Linear(6, 6), nn.Linear(18, 3)

    def forward(self, x, *, scale=2.0):
        torch._assert(x.shape[1] == 8, "eight columns")
        one = F.glu(self.first(x), dim=-1)
        two = self.second(one).clamp_(min=0)
        both = torch.concatenate([one, torch.add(input=two, other=one, alpha=1)], dim=-1)
        out = torch.empty_like(two)
        torch.mul(two, scale, out=out)
        return self.head(torch.hstack([both, out]))


@kind(ROWS, "plain.units")
class ComputedWeights(nn.Module):
    """Weights of parametrisations, of hooks and of masks, before a plain layer."""

    def __init__(self):
        super().__init__()
        self.spectral = parametrizations.spectral_norm(nn.Linear(8, 7))
        self.normed, self.masked = parametrizations.weight_norm(nn.Linear(7, 6)), nn.Linear(6, 5)
        prune.random_unstructured(self.masked, "weight", 0.3)
        self.plain, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.normed(F.relu(self.spectral(x))))
        return self.head(F.relu(self.plain(F.relu(self.masked(x)))))


def add_places(module, inputs, output):
    return output + torch.arange(output.shape[-1])


def double(module, inputs):
    return (2 * inputs[0],)


@kind(ROWS, "second.units")
class Hooked(nn.Module):
    """A hook that adds a constant for each unit, and one that a unit may pass through."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.first.register_forward_hook(add_places)
        self.head.register_forward_pre_hook(double)

    def forward(self, x):
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


@kind(ROWS, "enter.units", "decoder.units")
class Sampling(nn.Module):
    """A variational autoencoder: each call draws random numbers."""

    def __init__(self):
        super().__init__()
        self.enter, self.mean, self.spread = nn.Linear(8, 6), nn.Linear(6, 4), nn.Linear(6, 4)
        self.decoder, self.head = nn.Linear(4, 7), nn.Linear(7, 8)

    def forward(self, x):
        x = F.relu(self.enter(x))
        spread = self.spread(x)
        z = self.mean(x) + torch.randn_like(spread) * torch.exp(spread / 2)
        return self.head(F.relu(self.decoder(z)))
