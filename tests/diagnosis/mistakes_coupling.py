"""Samples that mix, dropout that stays on, modes that are switched, inputs that are ignored."""

import torch
import torch.nn.functional as F
from corpus import Wrapped, dense, images, mistake, network, values
from torch import nn


@mistake("CV711")
def mean_over_the_batch(wrong):
    return {"model": Wrapped(lambda m, x: m(x - x.mean(0 if wrong else (1, 2, 3), keepdim=True))), "train": images()}


@mistake("CV711")
def a_reshape_that_scrambles_samples(wrong):
    def forward(m, x):
        n = len(x)
        return m(x.reshape(-1, n).T.reshape(x.shape) if wrong else x.reshape(n, -1).reshape(x.shape))

    return {"model": Wrapped(forward), "train": images()}


@mistake("CV711")
def channels_and_samples_swapped(wrong):
    def forward(m, x):
        x = m[1](m[0](x))
        return m[3]((x.transpose(0, 1) if wrong else x).reshape(len(x), -1))

    return {"model": Wrapped(forward), "train": images()}


class Attention(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 3)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.mix(x, x, x)[0].mean(1))


@mistake("CV711")
def attention_with_the_batch_in_the_wrong_place(wrong):
    return {"model": Attention(not wrong), "train": images()}


@mistake("CV711")
def an_encoder_with_the_batch_in_the_wrong_place(wrong):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 3)
            self.mix = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=not wrong)

        def forward(self, x):
            return self.head(self.mix(self.stem(x).flatten(2).transpose(1, 2)).mean(1))

    return {"model": Encoder(), "train": images()}


@mistake("CV711")
def features_normalised_over_the_batch(wrong):
    def forward(m, x):
        return m[3](F.normalize(m[1](m[0](x)).flatten(1), dim=0 if wrong else 1))

    return {"model": Wrapped(forward), "train": images()}


@mistake("CV711")
def a_softmax_over_the_batch_inside(wrong):
    def forward(m, x):
        x = m[1](m[0](x)).flatten(1)
        return m[3](x * x.softmax(0 if wrong else 1))

    return {"model": Wrapped(forward), "train": images()}


@mistake("CV711")
def batch_norm_made_in_forward(wrong):
    norm = nn.BatchNorm2d(4)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.norm = network(), None if wrong else norm

        def forward(self, x):
            x = self.inner[0](x)
            x = nn.BatchNorm2d(4, affine=False)(x) if wrong else self.norm(x)
            return self.inner[3](x.flatten(1))

    return {"model": Net(), "train": images()}


@mistake("CV711")
def an_lstm_over_the_batch(wrong):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.head = nn.LSTM(24, 16, batch_first=not wrong), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.rnn(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])

    return {"model": Rows(), "train": images()}


@mistake("CV711", "CV315")
def softmax_without_a_dimension(wrong):
    return {"model": network(nn.LogSoftmax(dim=0 if wrong else 1)), "train": images(), "loss": "nll"}


@mistake("CV712")
def functional_dropout_without_the_mode(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            x = F.dropout(x, 0.3) if wrong else F.dropout(x, 0.3, training=self.training)
            return self.inner(x)

    return {"model": Net(), "train": images()}


@mistake("CV712")
def functional_dropout_of_channels(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner[3]((F.dropout2d(self.inner[0](x)) if wrong else self.inner[0](x)).flatten(1))

    return {"model": Net(), "train": images()}


@mistake("CV712")
def dropout_made_in_forward(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.drop = network(), nn.Dropout(0.5)

        def forward(self, x):
            return self.inner((nn.Dropout(0.5) if wrong else self.drop)(x))

    return {"model": Net(), "train": images()}


@mistake("CV712")
def dropout_in_a_list(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
            self.drops = [nn.Dropout(0.5)] if wrong else nn.ModuleList([nn.Dropout(0.5)])

        def forward(self, x):
            return self.inner(self.drops[0](x))

    return {"model": Net(), "train": images()}


@mistake("CV712")
def dropout_of_attention_without_the_mode(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 3)

        def forward(self, x):
            x = self.stem(x).flatten(2).transpose(1, 2)
            p = 0.2 if wrong or self.training else 0.0
            return self.head(F.scaled_dot_product_attention(x, x, x, dropout_p=p).mean(1))

    return {"model": Net(), "train": images()}


@mistake("CV713", "CV605")
def an_input_that_is_overwritten(wrong):
    return {"model": Wrapped(lambda m, x: m(torch.ones_like(x) if wrong else x)), "train": images()}


@mistake("CV713", "CV605")
def inputs_times_zero(wrong):
    return {"model": Wrapped(lambda m, x: m(x * (0 if wrong else 1))), "train": images()}


@mistake("CV713", "CV601")
def outputs_of_a_parameter_alone(wrong):
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head = nn.Parameter(torch.randn(1, 4)), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.table.expand(len(x), -1) + (0 if wrong else x))

    return {"model": Bias(), "train": values(), "loss": "mse"}


@mistake("CV713", "CV605")
def inputs_cast_to_integers_and_divided(wrong):
    train = [(x.sigmoid(), y) for x, y in images()]
    return {"model": Wrapped(lambda m, x: m((x / 255).long().float() if wrong else x)), "train": train}


@mistake("CV702")
def a_train_method_that_forgets_the_mode(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.drop = network(), nn.Dropout(0.2)

        def train(self, mode=True):
            return super().train(True if wrong else mode)

        def forward(self, x):
            return self.inner(self.drop(x))

    return {"model": Net(), "train": images()}


@mistake("CV702", "CV701")
def a_norm_put_into_training_in_forward(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.inner = nn.BatchNorm2d(3), network()

        def forward(self, x):
            if wrong:
                self.norm.train()
            return self.inner(self.norm(x))

    return {"model": Net(), "train": images()}


@mistake("CV701", "CV702")
def train_in_forward(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.drop = network(), nn.Dropout(0.2)

        def forward(self, x):
            if wrong:
                self.train()
            return self.inner(self.drop(x))

    return {"model": Net(), "train": images(), "val": images()}


@mistake("CV701")
def eval_in_a_step(wrong):
    def step(model, batch, state):
        if wrong:
            model.eval()
        return F.mse_loss(model(batch[0]), batch[1])

    return {"model": dense(), "train": values(), "val": values(), "step": step}


@mistake("CV508")
def batch_norm_with_the_momentum_of_keras(wrong):
    return {"model": nn.Sequential(nn.BatchNorm2d(3, momentum=0.99 if wrong else 0.01), *network()), "train": images()}


@mistake("CV507")
def dropout_that_drops_nearly_all(wrong):
    drop = nn.Dropout2d(0.99 if wrong else 0.1)
    return {"model": nn.Sequential(drop, *network()), "train": images()}
