"""Inputs on a wrong scale, without content, or other in validation than in training."""

import numpy as np
import torch
from corpus import dense, mistake, network, values
from mistakes_labels import loader
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import cvkit
from cvkit.data import ArrayDataset, Loader

MEAN, STD = (torch.tensor(one)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def bytes_of(count=48, size=8, seed=0, channels=3):
    """Images from 0 to 255, smooth as photographs are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, channels, 4, 4), generator=generator).float()
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear").round()


def data(inputs, **more):
    return loader(TensorDataset(inputs, torch.arange(len(inputs)) % 3), **more)


class Read(Dataset):
    """Images that are read one by one by a function."""

    def __init__(self, read, count=48):
        self.read, self.count = read, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.read(index), index % 3


@mistake("CV211")
def to_tensor_and_once_more(wrong):
    return {"model": network(), "train": data(bytes_of() / 255 / (255 if wrong else 1))}


@mistake("CV211")
def grey_images_divided_twice(wrong):
    train = data(bytes_of(channels=1) / 255 / (255 if wrong else 1))
    return {"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "train": train}


@mistake("CV212")
def not_divided(wrong):
    return {"model": network(), "train": data(bytes_of() / (1 if wrong else 255)), "lr": 1e-5}


@mistake("CV212")
def imagenets_mean_on_0_to_255(wrong):
    return {"model": network(), "train": data((bytes_of() / (1 if wrong else 255) - MEAN) / STD), "lr": 1e-5}


@mistake("CV212")
def mnist_mean_on_0_to_255(wrong):
    images = (bytes_of(channels=1) / (1 if wrong else 255) - 0.1307) / 0.3081
    return {"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "train": data(images), "lr": 1e-5}


@mistake("CV213")
def divided_by_double_slash(wrong):
    images = bytes_of()
    return {"model": network(), "train": data(images // 255 if wrong else images / 255)}


@mistake("CV213")
def divided_by_double_slash_and_normalised(wrong):
    images = bytes_of(size=16)
    return {"model": network(size=16), "train": data(((images // 255 if wrong else images / 255) - MEAN) / STD)}


@mistake("CV213")
def images_that_failed_to_load(wrong):
    images = bytes_of() / 255
    images[:: 2 if wrong else 100] = 0
    return {"model": network(), "train": data(images)}


@mistake("CV213")
def all_black(wrong):
    return {"model": network(), "train": data(torch.zeros(48, 3, 8, 8) if wrong else bytes_of() / 255)}


@mistake("CV213")
def val_failed_to_load(wrong):
    val = torch.full((24, 3, 8, 8), -1.8) if wrong else (bytes_of(24, seed=1) / 255 - MEAN) / STD
    return {"model": network(), "train": data((bytes_of() / 255 - MEAN) / STD), "val": data(val)}


@mistake("CV214")
def getitem_ignores_its_index(wrong):
    images = bytes_of() / 255
    return {"model": network(), "train": loader(Read(lambda index: images[0 if wrong else index]))}


@mistake("CV214")
def one_image_for_each_class(wrong):
    images = bytes_of() / 255
    return {"model": network(), "train": loader(Read(lambda index: images[index // 3 * 3 % 9 if wrong else index]))}


@mistake("CV214")
def four_images_again_and_again(wrong):
    images = bytes_of() / 255
    return {
        "model": network(),
        "train": loader(Read(lambda index: images[index % 3 if wrong else index]), batch_size=16),
    }


@mistake("CV215")
def val_is_not_normalised(wrong):
    val = bytes_of(24, seed=1) / 255
    return {
        "model": network(),
        "train": data((bytes_of() / 255 - MEAN) / STD),
        "val": data(val if wrong else (val - MEAN) / STD),
    }


@mistake("CV215")
def val_is_not_normalised_by_a_half(wrong):
    val = bytes_of(24, seed=1) / 255
    return {"model": network(), "train": data(bytes_of() / 127.5 - 1), "val": data(val if wrong else val * 2 - 1)}


@mistake("CV215", "CV212")
def val_is_not_divided(wrong):
    val = bytes_of(24, seed=1)
    return {"model": network(), "train": data(bytes_of() / 255), "val": data(val if wrong else val / 255)}


@mistake("CV215")
def train_is_not_normalised_and_val_is(wrong):
    train, val = bytes_of() / 255, (bytes_of(24, seed=1) / 255 - MEAN) / STD
    return {"model": network(), "train": data(train if wrong else (train - MEAN) / STD), "val": data(val)}


@mistake("CV215")
def features_scaled_in_training_only(wrong):
    val = [(x * 50 + 500 if wrong else x * 0.9, y) for x, y in values(16)]
    return {"model": dense(), "train": values(), "val": val, "loss": "mse"}


def pooled():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


@mistake("CV216")
def val_of_twice_the_size(wrong):
    return {"model": pooled(), "train": data(bytes_of() / 255), "val": data(bytes_of(24, 16 if wrong else 8, 1) / 255)}


@mistake("CV216")
def val_of_half_the_size(wrong):
    return {
        "model": pooled(),
        "train": data(bytes_of(48, 16) / 255),
        "val": data(bytes_of(24, 8 if wrong else 16, 1) / 255),
    }


def flipped(images, random):
    def read(index):
        return images[index].flip(-1) if random and torch.rand(()) < 0.5 else images[index]

    return Read(read, len(images))


@mistake("CV217")
def val_has_the_training_transform(wrong):
    train, val = bytes_of() / 255, bytes_of(24, seed=1) / 255
    return {"model": network(), "train": loader(flipped(train, True)), "val": DataLoader(flipped(val, wrong), 8)}


@mistake("CV217")
def random_split_of_one_augmented_dataset(wrong):
    images = bytes_of() / 255
    train = Subset(flipped(images, True), range(32))
    return {
        "model": network(),
        "train": loader(train),
        "val": DataLoader(Subset(flipped(images, wrong), range(32, 48)), 8),
    }


@mistake("CV217")
def the_training_preset_for_val(wrong):
    held = [bytes_of(count, 8, seed).to(torch.uint8).permute(0, 2, 3, 1).numpy() for count, seed in ((48, 0), (24, 1))]
    train, val = (ArrayDataset(np.ascontiguousarray(one), torch.arange(len(one)) % 3) for one in held)
    presets = [getattr(cvkit.transforms, f"small_image_{one}")(8) for one in ("train", "train" if wrong else "eval")]
    loaders = [Loader(one, 8, shuffle=True, transform=how) for one, how in zip((train, val), presets, strict=True)]
    return {"model": network(), "train": loaders[0], "val": loaders[1]}


@mistake("CV217")
def a_torchvision_like_transform_that_crops(wrong):
    images = np.random.default_rng(0).integers(0, 255, (48, 12, 12, 3), np.uint8)

    def read(index, random=True):
        left = int(torch.randint(0, 5, ())) if random else 2
        image = Image.fromarray(images[index]).crop((left, 2, left + 8, 10))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    return {
        "model": network(),
        "train": loader(Read(read)),
        "val": DataLoader(Read(lambda index: read(index, wrong).roll(1, 2), 24), 6),
    }


@mistake("CV218", "CV404")
def infinity_in_one_sample(wrong):
    images = bytes_of() / 255
    images[40] = float("inf") if wrong else 1 / 2 + images[40] / 2
    return {"model": network(), "train": data(images, shuffle=False)}


@mistake("CV218", "CV404")
def nan_in_a_validation_sample(wrong):
    images = bytes_of(24, seed=1) / 255
    images[20, 0, 0, 0] = float("nan") if wrong else 0.5
    return {"model": network(), "train": data(bytes_of() / 255), "val": data(images, shuffle=False)}
