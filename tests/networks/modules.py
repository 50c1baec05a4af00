"""Networks as an analyst writes them: what is packed, and what packing refuses. The tests name lines of this file."""

import torch
from torch import nn
from torch.nn import functional


class MLP(nn.Sequential):
    def __init__(self, hidden: int = 32) -> None:
        super().__init__(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.GroupNorm(2, 8), nn.MaxPool2d(2)
        second = nn.Conv2d(8, 16, 3, padding="same"), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.layers = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(16, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(image)
        return result


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.recurrent = nn.Embedding(50, 8), nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 50)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(self.table(words))
        result: torch.Tensor = self.head(states[:, -1])
        return result


class GRU(nn.Module):
    """Places first, as torch's recurrent layers have them of themselves; two layers in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.GRU(6, 5, num_layers=2, bidirectional=True), nn.Linear(10, 3)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        _, last = self.recurrent(series.transpose(0, 1))
        result: torch.Tensor = self.head(torch.cat([last[-1], last[-2]], -1))
        return result


class Block(nn.Module):
    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.together, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.wide = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        rows, places, width = found.shape
        parts = self.together(self.norm(found)).view(rows, places, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        found = found + self.out(seen.transpose(1, 2).reshape(rows, places, width))
        result: torch.Tensor = found + self.wide(found)
        return result


class LanguageModel(nn.Module):
    """A transformer whose head is its table: two names of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.blocks = nn.Embedding(50, 16), nn.Sequential(Block(), Block())
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.blocks(self.table(words)))[:, -1]
        return result


class Encoder(nn.Module):
    """Torch's own transformer, with positions that are learned and positions that are a buffer."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(50, 16), nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=dropout, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)
        self.register_buffer("waves", torch.sin(torch.arange(160.0)).reshape(1, 10, 16))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found = self.table(words) + self.places(torch.arange(words.shape[1])) + self.waves
        result: torch.Tensor = self.head(self.layers(found).mean(1))
        return result


class Recommender(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(30, 8), nn.Embedding(40, 8)
        self.of_user, self.of_item = nn.Embedding(30, 1), nn.Embedding(40, 1)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        match = (self.users(user) * self.items(item)).sum(-1) / 8**0.5
        result: torch.Tensor = match + self.of_user(user).squeeze(-1) + self.of_item(item).squeeze(-1)
        return result


class Many(nn.Module):
    """What else is read: one-dimensional convolutions, splits, hand-written attention, numbers and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 3, stride=2, padding=1, groups=2)
        self.pool, self.norm, self.bias = nn.AvgPool1d(2), nn.LayerNorm((4, 8)), nn.Parameter(torch.randn(1, 4, 8))
        self.scale = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        found = functional.silu(self.norm(self.pool(self.conv(series)).transpose(1, 2)) + self.bias)
        left, right = found.chunk(2, -1)
        shares = torch.softmax(left @ right.transpose(-1, -2) / 2**0.5, -1)
        seen = torch.cat([shares @ left, functional.elu(right[:, :, 1:3], 0.5)], dim=-1) * 2 - 1
        first, *_ = found.unbind(1)
        scaled = functional.leaky_relu(1 - first * self.scale, 0.2)
        return torch.cat([seen.flatten(1), torch.tanh(scaled), functional.softplus(first).amax(-1, keepdim=True)], 1)


class Attended(nn.Module):
    """Torch's attention that returns its weights, by products of all heads of all rows; and places first, masked."""

    waves: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.register_buffer("waves", torch.sin(torch.arange(240.0)).reshape(30, 1, 8))

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        found, _ = self.attention(series, series, series)
        places = found.permute(1, 0, 2) + self.waves[: series.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(places.shape[0])
        result: torch.Tensor = self.layers(places, mask=mask, is_causal=True).permute(1, 0, 2)[:, -1, :]
        return result


class Texts(nn.Module):
    """Convolutions over words, and the largest of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 6, padding_idx=0), nn.Linear(10, 2)
        self.windows = nn.ModuleList([nn.Conv1d(6, 5, width) for width in (2, 3)])

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found = self.table(words).permute(0, 2, 1).contiguous()
        result: torch.Tensor = self.head(torch.cat([functional.relu(one(found)).amax(-1) for one in self.windows], 1))
        return result


class Frames(nn.Module):
    """A layer over rows and places in one axis, and numbers that each are an input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.middle = nn.Linear(8, 4), nn.LayerNorm(4), nn.Parameter(torch.randn(3))

    def forward(self, series: torch.Tensor, age: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        rows, places, width = series.shape
        found = self.norm(torch.relu(self.layer(series.reshape(rows * places, width)))).reshape(rows, places, 4).sum(1)
        return torch.cat([found, self.middle - torch.stack([age, height, -age], dim=-1)], 1)


class BatchNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found = self[0](given)
        result: torch.Tensor = self[1](found)  # refused
        return result


class Layer(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)


class Branch(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given * 2 if given.sum() > 0 else super().forward(given)  # refused


class InPlace(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found = super().forward(given)
        found += 1  # refused
        return found


class InPlaceRelu(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.ReLU(inplace=True))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self[1](self[0](given))  # refused
        return result


class Centred(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found = super().forward(given)
        return found - found.mean(0)  # refused


class Gram(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found = super().forward(given)
        return found @ found.t()  # refused


class Softmaxed(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return torch.softmax(super().forward(given), 0)  # refused


class FirstRow(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found = super().forward(given)
        return found + found[0]  # refused


class Rolled(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return torch.roll(super().forward(given), 1, 0)  # refused


class ByCount(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return super().forward(given) / given.shape[0]  # refused


class OverRows(nn.Module):
    """A recurrent layer that takes the rows for the places, as batch_first=False does."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, 4)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.recurrent(given.unsqueeze(-1))[0]  # refused
        return found


class Noisy(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return super().forward(given) + torch.randn(4)  # refused


class Sorted(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return torch.sort(super().forward(given), -1).values  # refused


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, 4, batch_first=True)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        _, (_, cells) = self.recurrent(given.unsqueeze(-1))
        result: torch.Tensor = cells[-1]
        return result


@torch.library.custom_op("consilo_tests::own", mutates_args=())
def own(given: torch.Tensor) -> torch.Tensor:
    return given.clone()


@own.register_fake
def _own(given: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(given)


class Custom(Layer):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = own(super().forward(given))  # refused
        return found


class NotANumber(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.weight.data[0, 0] = float("nan")


class TooWide(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 5_000_000)


class TooDear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = nn.Parameter(torch.randn(64, 63, 63)), nn.Conv2d(64, 64, 23, padding=11)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(given.mean(-1)[:, None, None, None] * self.table)
        return found


class Half(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4, dtype=torch.float64)
