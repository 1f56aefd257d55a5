"""Sound programs whose inputs a hasty check would suspect."""

import torch
from corpus import network, sound
from mistakes_inputs import MEAN, STD, Read, bytes_of, data, pooled
from mistakes_labels import loader
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler


class Scales(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        return self.inner(x / 255)


@sound
def a_model_that_divides_itself():
    return {"model": Scales(), "train": data(bytes_of()), "val": data(bytes_of(24, seed=1))}


@sound
def batch_norm_before_everything():
    return {"model": nn.Sequential(nn.BatchNorm2d(3), network()), "train": data(bytes_of())}


@sound
def the_mean_subtracted_as_caffe_does():
    images = bytes_of() - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    return {"model": network(), "train": data(images), "lr": 1e-5}


@sound
def thin_strokes():
    images = torch.zeros(48, 1, 16, 16)
    for one, image in enumerate(images):
        image[0, 2 + one % 12, 3:13] = 1
    return {"model": nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), "train": data(images)}


@sound
def a_few_black_images():
    images = bytes_of() / 255
    images[::12] = 0
    return {"model": network(), "train": data(images)}


@sound
def black_patches_of_a_segmentation():
    images = bytes_of() / 255
    images[::2] = 0
    train = DataLoader(TensorDataset(images, torch.randint(0, 3, (48, 8, 8))), 8, shuffle=True)
    return {"model": nn.Conv2d(3, 3, 1), "train": train}


@sound
def one_image_overfitted():
    x = (bytes_of(1) / 255).expand(8, 3, 8, 8)
    return {"model": network(), "train": [(x, torch.ones(8, dtype=torch.long))]}


@sound
def drawn_with_replacement():
    images = bytes_of(6) / 255
    train = loader(TensorDataset(images, torch.arange(6) % 3), sampler=WeightedRandomSampler(torch.ones(6), 48))
    return {"model": network(), "train": train}


@sound
def darker_images_in_val():
    return {"model": network(), "train": data(bytes_of() / 255), "val": data(bytes_of(24, seed=1) / 255 * 0.4)}


@sound
def val_a_quarter_larger():
    return {"model": pooled(), "train": data(bytes_of(48, 16) / 255), "val": data(bytes_of(24, 20, 1) / 255)}


@sound
def whole_images_for_a_segmentation_of_crops():
    train, val = (
        DataLoader(
            TensorDataset(bytes_of(24, size, size) / 255, torch.randint(0, 3, (24, size, size))), 8, shuffle=size == 8
        )
        for size in (8, 32)
    )
    return {"model": nn.Conv2d(3, 3, 1), "train": train, "val": val}


@sound
def noise_in_training_only():
    images, others = bytes_of() / 255, bytes_of(24, seed=1) / 255
    train = loader(Read(lambda index: images[index] + 0.1 * torch.randn(3, 8, 8)))
    return {"model": network(), "train": train, "val": DataLoader(Read(lambda index: others[index], 24), 8)}


@sound
def a_denoiser_that_is_validated_on_noise():
    images = bytes_of() / 255

    class Noisy(Read):
        def __getitem__(self, index):
            return images[index] + 0.1 * torch.randn(3, 8, 8), images[index]

    parts = [DataLoader(Noisy(None, 48), 8, shuffle=one) for one in (True, False)]
    return {
        "model": nn.Conv2d(3, 3, 3, padding=1),
        "train": parts[0],
        "val": [(torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8))],
        "loss": "mse",
    }


@sound
def two_views_of_a_batch():
    def step(model, batch, state):
        first, second = (F.normalize(model(x), dim=1) for x in (batch[0], batch[0].flip(-1)))
        return F.cross_entropy(first @ second.T / 0.2, torch.arange(len(first)))

    return {"model": network(), "train": data((bytes_of() / 255 - MEAN) / STD), "step": step}


@sound
def each_image_standardised_by_itself():
    images = bytes_of()
    images = (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)
    return {"model": network(), "train": data(images), "val": data(images[:24].flip(-1) * 1.3)}


@sound
def missing_values_that_the_model_fills_in():
    class Fills(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x.nan_to_num(0))

    images = bytes_of() / 255
    images[40, 0, 0] = float("nan")
    return {"model": Fills(), "train": data(images, shuffle=False)}
