"""Sound programs that are random, or look at several values at once, on purpose."""

import torch
import torch.nn.functional as F
from corpus import Wrapped, images, network, sound, values
from mistakes_coupling import Attention
from torch import nn


@sound
def attention_over_tokens():
    return {"model": Attention(True), "train": images(), "val": images()}


@sound
def group_norm_and_instance_norm():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    return {"model": model, "train": images(), "val": images()}


@sound
def batch_norm():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3), nn.BatchNorm1d(3))
    return {"model": model, "train": images(), "val": images()}


@sound
def dropout_that_is_to_stay_on():
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(F.dropout(x, 0.1, training=True))

    return {"model": Drops(), "train": images()}


@sound
def a_latent_that_is_drawn():
    def forward(m, x):
        return m(x + 0.1 * torch.randn_like(x))

    return {"model": Wrapped(forward), "train": images()}


@sound
def all_weights_of_the_last_layers_zero():
    model = network()
    for one in model[3].parameters():
        nn.init.zeros_(one)
    return {"model": model, "train": images(), "val": images()}


@sound
def pairs_of_rows_and_columns():
    def forward(m, x):
        return m(x.transpose(2, 3).reshape(len(x), 3, 8, 8).flip(1))

    return {"model": Wrapped(forward), "train": images()}


@sound
def samples_unfolded_into_the_batch_and_back():
    def forward(m, x):
        patches = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 4, 4)
        return m(patches.reshape(len(x), 3, 8, 8))

    return {"model": Wrapped(forward), "train": images()}


@sound
def an_lstm_over_rows():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.head = nn.LSTM(24, 16, dropout=0.2, num_layers=2, batch_first=True), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.rnn(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])

    return {"model": Rows(), "train": images()}


@sound
def an_lstm_with_time_first():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.head = nn.GRU(24, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.rnn(x.permute(2, 0, 1, 3).flatten(2))[0][-1])

    return {"model": Rows(), "train": images()}


@sound
def a_norm_that_is_kept_in_evaluation():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.inner = nn.BatchNorm2d(3), network()

        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, x):
            return self.inner(self.norm(x))

    return {"model": Frozen(), "train": images(), "val": images()}


@sound
def dropout_of_attention_in_training_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 3)
            self.mix = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)

        def forward(self, x):
            x = self.stem(x).flatten(2).transpose(1, 2)
            x = F.scaled_dot_product_attention(x, x, x, dropout_p=0.1 if self.training else 0.0)
            return self.head(self.mix(x).mean(1))

    return {"model": Net(), "train": images()}


@sound
def dropout_of_zero():
    return {"model": Wrapped(lambda m, x: m(F.dropout(x, 0.0))), "train": images()}


@sound
def stochastic_depth_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.extra = network(), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            if not self.training or torch.rand(()) < 2:
                x = x + self.extra(x)
            return self.inner(x)

    return {"model": Net(), "train": images()}


@sound
def a_batch_of_one_sample():
    return {"model": Attention(True), "train": images(batch=1)}


@sound
def tokens_by_number():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head = nn.Embedding(10, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.table(x).mean(1))

    train = [(torch.arange(8)[:, None] + torch.arange(3), torch.arange(8) % 3)]
    return {"model": Words(), "train": train}


@sound
def ghost_statistics_in_training_only():
    class Ghost(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x - x.mean(0) if self.training else x)

    return {"model": Ghost(), "train": images()}


@sound
def a_reshape_of_values_that_stay_with_their_sample():
    return {
        "model": nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.Linear(4, 1)),
        "train": values(),
        "loss": "mse",
    }
