"""Mistakes between the last layer and the loss."""

import torch
import torch.nn.functional as F
from corpus import Wrapped, bits, dense, images, mistake, network, values
from torch import nn


def _when(wrong, *layers):
    return layers if wrong else ()


@mistake("CV311")
def softmax_module_before_cross_entropy(wrong):
    return {"model": network(*_when(wrong, nn.Softmax(1))), "train": images()}


@mistake("CV311")
def softmax_function_before_cross_entropy(wrong):
    return {"model": Wrapped(lambda m, x: m(x).softmax(-1) if wrong else m(x)), "train": images()}


@mistake("CV311")
def softmax_before_a_module_of_cross_entropy_with_weights(wrong):
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0]), label_smoothing=0.0)
    return {"model": network(*_when(wrong, nn.Softmax(dim=1))), "train": images(), "loss": loss}


@mistake("CV311")
def softmax_in_a_step(wrong):
    def step(model, batch, state):
        outputs = model(batch[0])
        outputs = F.softmax(outputs, dim=1) if wrong else outputs
        return F.cross_entropy(outputs, batch[1]), outputs, batch[1]

    return {"model": network(), "train": images(), "step": step}


@mistake("CV311")
def softmax_over_pixels_of_a_segmentation(wrong):
    train = [(torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8)))]
    return {"model": nn.Sequential(nn.Conv2d(3, 3, 1), *_when(wrong, nn.Softmax2d())), "train": train}


@mistake("CV311")
def sigmoid_of_each_class_before_cross_entropy(wrong):
    return {"model": network(*_when(wrong, nn.Sigmoid())), "train": images()}


@mistake("CV311")
def sigmoid_in_forward_before_cross_entropy(wrong):
    return {"model": Wrapped(lambda m, x: torch.sigmoid(m(x)) if wrong else m(x)), "train": images()}


@mistake("CV311")
def tanh_before_cross_entropy(wrong):
    return {"model": network(*_when(wrong, nn.Tanh())), "train": images()}


@mistake("CV311")
def softmax_in_a_loss_function(wrong):
    def loss(outputs, targets):
        return F.cross_entropy(outputs.softmax(1) if wrong else outputs, targets)

    return {"model": network(), "train": images(), "loss": loss}


@mistake("CV312")
def relu_after_the_last_layer(wrong):
    return {"model": network(*_when(wrong, nn.ReLU())), "train": images()}


@mistake("CV312")
def relu_in_forward_after_the_last_layer(wrong):
    return {"model": Wrapped(lambda m, x: F.relu(m(x)) if wrong else m(x)), "train": images()}


@mistake("CV312")
def relu_before_bce(wrong):
    return {"model": dense(*_when(wrong, nn.ReLU())), "train": bits(), "loss": "bce"}


@mistake("CV313")
def sigmoid_module_before_bce(wrong):
    return {"model": dense(*_when(wrong, nn.Sigmoid())), "train": bits(), "loss": "bce"}


@mistake("CV313")
def sigmoid_in_forward_before_bce(wrong):
    return {
        "model": Wrapped(lambda m, x: torch.sigmoid(m(x)) if wrong else m(x), dense()),
        "train": bits(),
        "loss": "bce",
    }


@mistake("CV313")
def sigmoid_and_squeeze_before_bce(wrong):
    def forward(m, x):
        return torch.sigmoid(m(x)).squeeze(1) if wrong else m(x).squeeze(1)

    train = [(x, y[:, 0]) for x, y in bits()]
    return {"model": Wrapped(forward, dense()), "train": train, "loss": nn.BCEWithLogitsLoss()}


@mistake("CV313")
def sigmoid_of_several_labels_before_bce(wrong):
    return {"model": dense(*_when(wrong, nn.Sigmoid()), outputs=3), "train": bits(labels=3), "loss": "bce"}


@mistake("CV313")
def softmax_before_bce(wrong):
    return {"model": dense(*_when(wrong, nn.Softmax(1)), outputs=3), "train": bits(labels=3), "loss": "bce"}


@mistake("CV314")
def logits_into_nll(wrong):
    return {"model": network(*_when(not wrong, nn.LogSoftmax(1))), "train": images(), "loss": "nll"}


@mistake("CV314")
def softmax_without_log_into_nll(wrong):
    end = nn.Softmax(1) if wrong else nn.LogSoftmax(1)
    return {"model": network(end), "train": images(), "loss": nn.NLLLoss()}


@mistake("CV315")
def softmax_over_the_batch(wrong):
    loss = "nll"
    return {"model": network(nn.LogSoftmax(0 if wrong else 1)), "train": images(), "loss": loss}


@mistake("CV315", "CV311")
def softmax_over_the_batch_before_cross_entropy(wrong):
    return {"model": Wrapped(lambda m, x: torch.softmax(m(x), 0) if wrong else m(x)), "train": images()}


@mistake("CV316")
def sigmoid_and_targets_up_to_10(wrong):
    return {"model": dense(nn.Sigmoid()), "train": values(low=0, high=10 if wrong else 1), "loss": "mse"}


@mistake("CV316")
def tanh_and_targets_up_to_5(wrong):
    return {"model": dense(nn.Tanh()), "train": values(low=-5 if wrong else -1, high=5 if wrong else 1), "loss": "l1"}


@mistake("CV316")
def relu_and_targets_below_0(wrong):
    return {"model": dense(nn.ReLU()), "train": values(low=-1 if wrong else 0), "loss": nn.SmoothL1Loss()}


@mistake("CV316")
def sigmoid_decoder_and_normalised_images(wrong):
    inputs = torch.randn(8, 3, 8, 8) if wrong else torch.rand(8, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid())
    return {"model": model, "train": [(inputs, inputs)], "loss": "mse"}


@mistake("CV317")
def sigmoid_before_dice(wrong):
    train = [(torch.randn(2, 3, 8, 8), (torch.rand(2, 8, 8) > 0.5).long())]
    return {"model": nn.Sequential(nn.Conv2d(3, 1, 1), *_when(wrong, nn.Sigmoid())), "train": train, "loss": "dice"}


@mistake("CV317")
def softmax_before_dice(wrong):
    train = [(torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8)))]
    return {"model": nn.Sequential(nn.Conv2d(3, 3, 1), *_when(wrong, nn.Softmax(1))), "train": train, "loss": "dice"}


# --- shapes and kinds


@mistake("CV301")
def forward_without_a_return(wrong):
    def forward(m, x):
        y = m(x)
        return None if wrong else y

    return {"model": Wrapped(forward), "train": images()}


@mistake("CV301")
def forward_returns_a_pair(wrong):
    return {"model": Wrapped(lambda m, x: (m(x), x) if wrong else m(x)), "train": images()}


@mistake("CV301")
def forward_returns_a_dict(wrong):
    return {"model": Wrapped(lambda m, x: {"out": m(x)} if wrong else m(x)), "train": images()}


@mistake("CV302")
def mse_broadcasts_a_column_with_a_row(wrong):
    return {"model": dense(), "train": values(wide=not wrong), "loss": nn.MSELoss()}


@mistake("CV302")
def l1_broadcasts(wrong):
    return {"model": dense(), "train": values(wide=not wrong), "loss": nn.L1Loss()}


@mistake("CV303")
def float_labels(wrong):
    return {"model": network(), "train": [(x, y.float() if wrong else y) for x, y in images()]}


@mistake("CV303")
def masks_as_floats(wrong):
    mask = torch.randint(0, 2, (2, 8, 8))
    return {"model": nn.Conv2d(3, 2, 1), "train": [(torch.randn(2, 3, 8, 8), mask.float() if wrong else mask)]}


@mistake("CV304")
def one_hot_integers(wrong):
    return {"model": network(), "train": [(x, F.one_hot(y, 3) if wrong else y) for x, y in images()]}


@mistake("CV305")
def labels_from_1(wrong):
    return {"model": network(), "train": [(x, y + wrong) for x, y in images()]}


@mistake("CV305")
def one_output_for_two_classes(wrong):
    return {"model": network(classes=1 if wrong else 2), "train": images(classes=2)}


@mistake("CV305")
def mask_of_0_and_255(wrong):
    mask = torch.randint(0, 2, (2, 8, 8)) * (255 if wrong else 1)
    return {"model": nn.Conv2d(3, 2, 1), "train": [(torch.randn(2, 3, 8, 8), mask)]}


@mistake("CV305")
def border_of_255_without_ignore_index(wrong):
    mask = torch.randint(0, 3, (2, 8, 8))
    mask[:, 0] = 255
    loss = "cross_entropy" if wrong else nn.CrossEntropyLoss(ignore_index=255)
    return {"model": nn.Conv2d(3, 3, 1), "train": [(torch.randn(2, 3, 8, 8), mask)], "loss": loss}


@mistake("CV305")
def pixels_of_minus_1(wrong):
    mask = torch.randint(0, 3, (2, 8, 8))
    mask[:, 0] = -1
    loss = nn.CrossEntropyLoss(ignore_index=-100 if wrong else -1)
    return {"model": nn.Conv2d(3, 3, 1), "train": [(torch.randn(2, 3, 8, 8), mask)], "loss": loss}


# --- the loss against the targets


@mistake("CV401")
def a_loss_for_each_sample(wrong):
    def loss(outputs, targets):
        found = F.cross_entropy(outputs, targets, reduction="none")
        return found if wrong else found.mean()

    return {"model": network(), "train": images(), "loss": loss}


@mistake("CV402")
def item_in_the_loss(wrong):
    def loss(outputs, targets):
        found = F.cross_entropy(outputs, targets)
        return torch.tensor(found.item()) if wrong else found

    return {"model": network(), "train": images(), "loss": loss}


@mistake("CV411")
def bce_with_0_and_255(wrong):
    return {"model": dense(), "train": bits(high=255.0 if wrong else 1.0), "loss": "bce"}


@mistake("CV411")
def bce_with_minus_1_and_1(wrong):
    return {"model": dense(), "train": bits(low=-1.0 if wrong else 0.0), "loss": nn.BCEWithLogitsLoss()}


@mistake("CV411")
def bce_in_a_step_with_classes_1_and_2(wrong):
    def step(model, batch, state):
        return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1] + wrong)

    return {"model": dense(), "train": bits(), "step": step}


@mistake("CV412")
def images_of_0_to_255(wrong):
    train = [(x.sigmoid() * (255 * 20 if wrong else 1), y) for x, y in images(size=16)]
    return {"model": network(size=16), "train": train, "lr": 1e-5}


@mistake("CV413")
def minus_cross_entropy(wrong):
    def loss(outputs, targets):
        return -F.cross_entropy(outputs, targets) if wrong else F.cross_entropy(outputs, targets)

    return {"model": network(), "train": images(), "loss": loss}


@mistake("CV413")
def minus_mse_in_a_step(wrong):
    def step(model, batch, state):
        return (-1 if wrong else 1) * F.mse_loss(model(batch[0]), batch[1])

    return {"model": dense(), "train": values(), "step": step}


@mistake("CV414")
def class_numbers_by_mse(wrong):
    train = [(x, y) for x, y in images(batch=12)]
    if wrong:
        return {"model": network(classes=1), "train": train, "loss": "mse"}
    return {"model": network(), "train": train}


@mistake("CV415")
def a_class_weight_of_0(wrong):
    counts = torch.tensor([5.0, 30.0, 10.0])
    weight = counts.min() // counts if wrong else counts.min() / counts
    return {"model": network(), "train": images(), "loss": nn.CrossEntropyLoss(weight=weight)}


@mistake("CV416")
def label_smoothing_of_1(wrong):
    return {"model": network(), "train": images(), "loss": nn.CrossEntropyLoss(label_smoothing=1.0 if wrong else 0.1)}


@mistake("CV418")
def prices_in_euros(wrong):
    train = values(low=100_000 if wrong else -1, high=400_000 if wrong else 1)
    return {"model": dense(), "train": train, "loss": "mse"}


@mistake("CV301")
def forward_returns_an_array(wrong):
    return {"model": Wrapped(lambda m, x: m(x).detach().numpy() if wrong else m(x)), "train": images()}


@mistake("CV307")
def a_difference_in_a_loss_of_ones_own_broadcasts(wrong):
    def loss(outputs, targets):
        return ((outputs - (targets[:, 0] if wrong else targets)) ** 2).mean()

    return {"model": dense(), "train": values(), "loss": loss}


@mistake("CV307")
def a_target_minus_a_column_broadcasts(wrong):
    def loss(outputs, targets):
        return (targets - (outputs if wrong else outputs[:, 0])).abs().mean()

    return {"model": dense(), "train": values(wide=False), "loss": loss}


@mistake("CV307")
def mse_in_a_step_broadcasts(wrong):
    def step(model, batch, state):
        return F.mse_loss(model(batch[0]), batch[1][:, 0] if wrong else batch[1])

    return {"model": dense(), "train": values(), "step": step}


@mistake("CV406")
def a_root_of_zero(wrong):
    def loss(outputs, targets):
        return torch.sqrt((outputs - outputs.detach()).pow(2).sum() + (0 if wrong else 1e-8)) + F.mse_loss(
            outputs, targets
        )

    return {"model": dense(), "train": values(), "loss": loss}


class Named(list):
    classes = ("a", "b", "c")


class NamedData(torch.utils.data.TensorDataset):
    classes = ("a", "b", "c")


@mistake("CV306")
def ten_outputs_for_three_named_classes(wrong):
    return {"model": network(classes=10 if wrong else 3), "train": Named(images())}


@mistake("CV306")
def ten_outputs_for_a_dataset_of_three_classes(wrong):
    data = NamedData(*(torch.cat(part) for part in zip(*images(), strict=True)))
    train = torch.utils.data.DataLoader(torch.utils.data.Subset(data, range(12)), 6, shuffle=True)
    return {"model": network(classes=1000 if wrong else 3), "train": train}


@mistake("CV305")
def two_outputs_for_a_dataset_of_three_classes(wrong):
    data = NamedData(*(torch.cat(part) for part in zip(*images(classes=2), strict=True)))
    return {"model": network(classes=2 if wrong else 3), "train": torch.utils.data.DataLoader(data, 6, shuffle=True)}


@mistake("CV404")
def nan_in_the_inputs(wrong):
    train = images()
    train[0][0][2, 0, 0, 0] = float("nan") if wrong else 0.0
    return {"model": network(), "train": train}


@mistake("CV404")
def infinity_in_the_validation_inputs(wrong):
    val = images()
    val[0][0][2, 0, 0, 0] = float("-inf") if wrong else 0.0
    return {"model": network(), "train": images(), "val": val}


@mistake("CV404")
def nan_in_regression_targets(wrong):
    train = values()
    train[0][1][3] = float("nan") if wrong else 0.0
    return {"model": dense(), "train": train, "loss": "mse"}
