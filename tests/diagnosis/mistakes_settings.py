"""Settings that cannot be meant, batches that are not full, and programs that fail."""

import torch
import torch.nn.functional as F
from corpus import Wrapped, dense, images, mistake, network, values
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader, TensorDataset

from cvkit.callbacks import EarlyStopping, LRSchedule


def _loader(count=20, batch=8, **options):
    inputs, targets = (torch.cat(part) for part in zip(*images(count), strict=True))
    return DataLoader(TensorDataset(inputs, targets), batch, **{"shuffle": True, **options})


@mistake("CV501")
def lr_of_0(wrong):
    return {"model": network(), "train": images(), "lr": 0.0 if wrong else 1e-3}


@mistake("CV501")
def lr_of_0_in_an_optimizer(wrong):
    return {"model": network(), "train": images(), "optimizer": lambda p: SGD(p, lr=0.0 if wrong else 0.01)}


@mistake("CV502")
def lr_of_1e_minus_12(wrong):
    return {"model": network(), "train": images(), "lr": 1e-12 if wrong else 1e-2}


@mistake("CV502")
def lr_of_1e_minus_10_with_sgd(wrong):
    return {"model": network(), "train": images(), "optimizer": "sgd", "lr": 1e-10 if wrong else 0.1}


@mistake("CV503")
def sgd_with_lr_100(wrong):
    return {"model": dense(), "train": values(), "loss": "mse", "optimizer": "sgd", "lr": 100.0 if wrong else 0.1}


@mistake("CV503")
def adam_with_lr_10(wrong):
    return {"model": network(), "train": images(), "optimizer": "adam", "lr": 10.0 if wrong else 1e-3}


@mistake("CV504")
def momentum_of_1(wrong):
    return {"model": network(), "train": images(), "optimizer": lambda p: SGD(p, 0.01, momentum=1.0 if wrong else 0.9)}


@mistake("CV505")
def weight_decay_of_100(wrong):
    decay = 100 if wrong else 0.3
    return {"model": network(), "train": images(), "optimizer": lambda p: AdamW(p, lr=1e-2, weight_decay=decay)}


@mistake("CV505")
def weight_decay_of_5_with_sgd(wrong):
    decay = 5 if wrong else 5e-4
    return {"model": network(), "train": images(), "optimizer": lambda p: SGD(p, lr=0.1, weight_decay=decay)}


@mistake("CV505")
def weight_decay_of_50_with_adam(wrong):
    decay = 50 if wrong else 1e-4
    return {"model": network(), "train": images(), "optimizer": lambda p: Adam(p, lr=1e-3, weight_decay=decay)}


@mistake("CV506")
def clip_norm_of_a_millionth(wrong):
    return {"model": network(), "train": images(), "optimizer": "sgd", "lr": 0.1, "clip_norm": 1e-6 if wrong else 1.0}


@mistake("CV507")
def dropout_of_everything(wrong):
    return {
        "model": nn.Sequential(nn.Flatten(), nn.Dropout(1.0 if wrong else 0.5), nn.Linear(192, 3)),
        "train": images(),
    }


@mistake("CV507")
def dropout2d_of_the_share_that_is_kept(wrong):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout2d(0.95 if wrong else 0.05), nn.Flatten(), nn.Linear(288, 3))
    return {"model": model, "train": images()}


@mistake("CV508")
def batch_norm_with_keras_momentum(wrong):
    norm = nn.BatchNorm2d(4, momentum=0.99 if wrong else 0.01)
    return {"model": nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Flatten(), nn.Linear(144, 3)), "train": images()}


@mistake("CV509")
def accumulate_of_100_with_three_batches(wrong):
    return {"model": network(), "train": images(), "accumulate": 100 if wrong else 2}


@mistake("CV510")
def cosine_over_epochs_stepped_at_updates(wrong):
    def schedule(optimizer, total):
        return CosineAnnealingLR(optimizer, T_max=2 if wrong else total)

    return {"model": network(), "train": images(96), "epochs": 2, "schedule": schedule}


@mistake("CV510")
def step_lr_over_epochs_stepped_at_updates(wrong):
    def schedule(optimizer, total):
        return StepLR(optimizer, step_size=1 if wrong else total // 3, gamma=0.1)

    return {"model": network(), "train": images(96), "epochs": 2, "schedule": schedule}


@mistake("CV510")
def exponential_decay_at_updates(wrong):
    def schedule(optimizer, total):
        return ExponentialLR(optimizer, gamma=0.1 if wrong else 0.99)

    return {"model": network(), "train": images(96), "epochs": 2, "schedule": schedule}


@mistake("CV510")
def cosine_over_epochs_in_a_callback(wrong):
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    every = "step" if wrong else "epoch"
    callbacks = [LRSchedule(CosineAnnealingLR(optimizer, T_max=2), every=every)]
    return {"model": model, "train": images(96), "epochs": 2, "optimizer": optimizer, "callbacks": callbacks}


@mistake("CV511")
def one_cycle_runs_out(wrong):
    def schedule(optimizer, total):
        return OneCycleLR(optimizer, max_lr=0.01, total_steps=10 if wrong else total)

    return {"model": network(), "train": images(96), "epochs": 2, "schedule": schedule}


@mistake("CV512")
def early_stopping_on_accuracy_that_falls(wrong):
    callbacks = [EarlyStopping(monitor="val_accuracy", mode="min" if wrong else "max")]
    return {"model": network(), "train": images(), "val": images(), "callbacks": callbacks}


@mistake("CV512")
def early_stopping_on_a_loss_that_rises(wrong):
    callbacks = [EarlyStopping(monitor="val_loss", mode="max" if wrong else "min")]
    return {"model": network(), "train": images(), "val": images(), "callbacks": callbacks}


@mistake("CV513")
def drop_last_of_half_the_validation(wrong):
    val = _loader(15, 8, shuffle=False, drop_last=wrong)
    return {"model": network(), "train": _loader(24), "val": val}


# --- the batch that is not full


@mistake("CV751")
def batch_norm_and_a_last_batch_of_one(wrong):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    return {"model": model, "train": _loader(17, 8, drop_last=not wrong)}


@mistake("CV751")
def a_hard_coded_batch_size(wrong):
    def forward(m, x):
        return m(x.reshape(8, 3, 8, 8) if wrong else x)

    return {"model": Wrapped(forward), "train": _loader(20, 8)}


@mistake("CV751")
def a_state_of_the_first_batch_size(wrong):
    noise = torch.zeros(8, 3)
    return {"model": Wrapped(lambda m, x: m(x) + (noise if wrong else noise[: len(x)])), "train": _loader(20, 8)}


@mistake("CV751")
def a_hard_coded_batch_size_met_in_validation(wrong):
    def forward(m, x):
        return m(x).view(8, 3) if wrong else m(x).view(-1, 3)

    return {"model": Wrapped(forward), "train": _loader(24, 8), "val": _loader(21, 8, shuffle=False)}


# --- programs that fail


@mistake("CV801")
def grey_images_into_a_colour_model(wrong):
    return {"model": network(), "train": images(channels=1 if wrong else 3)}


@mistake("CV801")
def channels_last(wrong):
    return {"model": network(), "train": [(x.permute(0, 2, 3, 1) if wrong else x, y) for x, y in images()]}


@mistake("CV801")
def linear_without_flatten(wrong):
    layers = [nn.Linear(192, 3)] if wrong else [nn.Flatten(), nn.Linear(192, 3)]
    return {"model": nn.Sequential(*layers), "train": images()}


@mistake("CV801")
def half_weights_and_float_inputs(wrong):
    model = network()
    return {"model": model.half() if wrong else model, "train": images()}


@mistake("CV801")
def in_features_of_another_size(wrong):
    return {"model": network(size=16 if wrong else 8), "train": images()}


@mistake("CV804")
def skip_connection_of_another_size(wrong):
    down, up = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2)
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 3))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up, self.end = down, up, end

        def forward(self, x):
            return self.end(torch.cat([x, self.up(self.down(x))], 1))

    return {"model": Net(), "train": images(size=7 if wrong else 8)}


@mistake("CV804")
def view_that_does_not_fit(wrong):
    return {"model": Wrapped(lambda m, x: m(x.view(-1, 3, 7 if wrong else 8, 8))), "train": images()}


@mistake("CV804")
def an_attribute_that_is_not_there(wrong):
    return {"model": Wrapped(lambda m, x: m.head(x) if wrong else m(x)), "train": images()}


@mistake("CV802")
def arguments_of_the_loss_swapped(wrong):
    def loss(targets, outputs):
        return F.cross_entropy(outputs, targets)

    def right(outputs, targets):
        return F.cross_entropy(outputs, targets)

    return {"model": network(), "train": images(), "loss": loss if wrong else right}


@mistake("CV802")
def a_key_that_the_batch_does_not_have(wrong):
    train = [{"image": x, "label": y} for x, y in images()]

    def step(model, batch, state):
        return F.cross_entropy(model(batch["pixels" if wrong else "image"]), batch["label"])

    return {"model": network(), "train": train, "step": step}


@mistake("CV803")
def in_place_on_a_sigmoid(wrong):
    def forward(m, x):
        y = torch.sigmoid(m[0](x))
        if wrong:
            y += 1
        else:
            y = y + 1
        return m[3](y.flatten(1))

    return {"model": Wrapped(forward), "train": images()}


@mistake("CV803")
def backward_in_the_step(wrong):
    def step(model, batch, state):
        loss = F.cross_entropy(model(batch[0]), batch[1])
        if wrong:
            loss.backward()
        return loss

    return {"model": network(), "train": images(), "step": step}


@mistake("CV201")
def batches_as_dictionaries(wrong):
    return {"model": network(), "train": [{"x": x, "y": y} if wrong else (x, y) for x, y in images()]}


@mistake("CV202")
def the_dataset_in_place_of_a_loader(wrong):
    data = _loader(24).dataset
    return {"model": network(), "train": data if wrong else DataLoader(data, 8, shuffle=True)}


@mistake("CV203")
def names_in_place_of_numbers(wrong):
    train = [(x, [str(int(one)) for one in y] if wrong else y) for x, y in images()]
    return {"model": network(), "train": train}


@mistake("CV204")
def arrays_in_place_of_tensors(wrong):
    return {"model": network(), "train": [(x.numpy(), y.numpy()) if wrong else (x, y) for x, y in images()]}


@mistake("CV205")
def bytes_in_place_of_floats(wrong):
    train = [((x.sigmoid() * 255).to(torch.uint8), y) for x, y in images()]
    return {"model": network(), "train": train if wrong else [(x / 255, y) for x, y in train]}


@mistake("CV601")
def a_layer_that_forward_never_uses(wrong):
    model = Wrapped(lambda m, x: m(x))
    if wrong:
        model.spare = nn.Linear(3, 3)
    return {"model": model, "train": images()}


@mistake("CV602", "CV601")
def the_head_replaced_after_the_optimizer(wrong):
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    if wrong:
        model[3] = nn.Linear(256, 3)
    return {"model": model, "train": images(), "optimizer": optimizer}


@mistake("CV701")
def eval_in_forward(wrong):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            if wrong:
                self.eval()
            return self.inner(x)

    return {"model": Net(), "train": images()}


@mistake("CV701")
def train_in_a_step_that_validates_too(wrong):
    def step(model, batch, state):
        if wrong:
            model.train()
        return F.cross_entropy(model(batch[0]), batch[1])

    return {"model": network(), "train": images(), "val": images(), "step": step}


@mistake("CV621")
def backward_with_the_graph_retained(wrong):
    def step(model, batch, state):
        loss = F.cross_entropy(model(batch[0]), batch[1])
        if wrong:
            loss.backward(retain_graph=True)
        return loss

    return {"model": network(), "train": images(), "step": step}
