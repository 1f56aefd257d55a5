"""Sound programs that a hasty check would suspect."""

import torch
import torch.nn.functional as F
from corpus import Wrapped, bits, dense, images, network, sound, values
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR
from torch.utils.data import DataLoader, TensorDataset


@sound
def plain_classifier():
    return {"model": network(), "train": images(), "val": images(12)}


@sound
def warm_up_from_0():
    def schedule(optimizer, total):
        return LambdaLR(optimizer, lambda step: min(1.0, step / 5))

    return {"model": network(), "train": images(), "schedule": schedule, "epochs": 4}


@sound
def batches_of_one():
    return {"model": network(), "train": images(batch=1)}


@sound
def softplus_for_counts():
    train = [(x, torch.poisson(y.abs() * 3)) for x, y in values()]
    return {"model": dense(nn.Softplus()), "train": train, "loss": nn.PoissonNLLLoss(log_input=False)}


@sound
def relu_for_amounts_that_are_not_negative():
    return {"model": dense(nn.ReLU()), "train": values(low=0.2, high=2), "loss": "mse"}


@sound
def low_rank_layers_without_an_activation():
    return {"model": nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Linear(2, 3)), "train": images()}


@sound
def contrastive_loss():
    def step(model, batch, state):
        first, second = (F.normalize(model(batch[0] + 0.1 * torch.randn_like(batch[0])), dim=1) for _ in range(2))
        return F.cross_entropy(first @ second.T / 0.1, torch.arange(len(first)))

    return {"model": network(classes=16), "train": images(), "step": step}


@sound
def cosine_loss_is_negative():
    def step(model, batch, state):
        out = model(batch[0])
        return -F.cosine_similarity(out, out.detach().roll(1, 1)).mean()

    return {"model": network(classes=16), "train": images(), "step": step}


@sound
def accumulate_of_4_with_three_batches():
    return {"model": network(), "train": images(), "accumulate": 4}


@sound
def smoothing_and_class_weights():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.2, 3.0]), label_smoothing=0.1)
    return {"model": network(), "train": images(), "loss": loss}


@sound
def background_of_weight_0():
    return {"model": network(), "train": images(), "loss": nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 1.0]))}


@sound
def a_quarter_of_the_pixels_ignored():
    mask = torch.randint(0, 3, (2, 8, 8))
    mask[:, :2] = 255
    return {
        "model": nn.Conv2d(3, 3, 1),
        "train": [(torch.randn(2, 3, 8, 8), mask)],
        "loss": nn.CrossEntropyLoss(ignore_index=255),
    }


@sound
def several_labels():
    return {"model": dense(outputs=3), "train": bits(labels=3), "loss": "bce"}


@sound
def soft_targets_for_bce():
    return {"model": dense(), "train": [(x, y * 0.9 + 0.05) for x, y in bits()], "loss": "bce"}


@sound
def probabilities_into_bce_loss():
    return {"model": dense(nn.Sigmoid()), "train": bits(), "loss": nn.BCELoss()}


@sound
def soft_labels_for_cross_entropy():
    return {"model": network(), "train": [(x, F.one_hot(y, 3).float() * 0.8 + 0.2 / 3) for x, y in images()]}


@sound
def kl_divergence_of_log_softmax():
    train = [(x, torch.randn(len(x), 3).softmax(1)) for x, _ in images()]
    return {"model": network(nn.LogSoftmax(1)), "train": train, "loss": nn.KLDivLoss(reduction="batchmean")}


@sound
def log_of_a_softmax_into_nll():
    return {"model": Wrapped(lambda m, x: m(x).softmax(1).log()), "train": images(), "loss": "nll"}


@sound
def attention_inside_ends_in_a_softmax():
    def forward(m, x):
        return m(x * x.flatten(2).softmax(-1).view_as(x))

    return {"model": Wrapped(forward), "train": images()}


@sound
def gates_of_sigmoids_inside():
    return {"model": Wrapped(lambda m, x: m(x * x.sigmoid()).tanh() * 5), "train": images()}


@sound
def sigmoid_for_targets_in_0_to_1():
    return {"model": dense(nn.Sigmoid()), "train": values(low=0, high=1), "loss": "mse"}


@sound
def sigmoid_autoencoder():
    x = torch.rand(8, 3, 8, 8)
    return {
        "model": nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()),
        "train": [(x, x)],
        "loss": "bce" and nn.BCELoss(),
    }


@sound
def tanh_for_actions():
    return {"model": dense(nn.Tanh()), "train": values(), "loss": "mse"}


@sound
def adamw_with_decay_of_vision_transformers():
    return {"model": network(), "train": images(), "optimizer": lambda p: AdamW(p, lr=1e-3, weight_decay=0.3)}


@sound
def a_group_with_lr_0_for_now():
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[3].parameters()}]
    return {"model": model, "train": images(), "optimizer": SGD(groups, lr=0.01)}


@sound
def zero_initialised_head():
    model = network()
    nn.init.zeros_(model[3].weight)
    nn.init.zeros_(model[3].bias)
    return {"model": model, "train": images()}


@sound
def warm_restarts():
    def schedule(optimizer, total):
        return CosineAnnealingWarmRestarts(optimizer, T_0=4)

    return {"model": network(), "train": images(96), "epochs": 2, "schedule": schedule}


@sound
def every_schedule_by_name():
    return {"model": network(), "train": images(96), "epochs": 2, "schedule": "onecycle"}


@sound
def linear_schedule():
    return {"model": network(), "train": images(96), "epochs": 2, "schedule": "linear"}


@sound
def cosine_schedule():
    return {"model": network(), "train": images(96), "epochs": 2, "schedule": "cosine"}


@sound
def gan_step():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = nn.Linear(4, 4), nn.Linear(4, 1)

    model = Gan()

    def step(model, batch, state):
        fake = model.g(torch.randn_like(batch[0]))
        real_loss = F.softplus(-model.d(batch[0])).mean()
        return real_loss + F.softplus(model.d(fake)).mean()

    return {"model": model, "train": values(), "step": step}


@sound
def wasserstein_critic():
    def step(model, batch, state):
        return model(torch.randn_like(batch[0])).mean() - model(batch[0]).mean()

    return {"model": dense(), "train": values(), "step": step}


@sound
def triplet_loss():
    def step(model, batch, state):
        out = model(batch[0])
        return F.triplet_margin_loss(out, out.roll(1, 0), out.roll(2, 0))

    return {"model": network(classes=8), "train": images(), "step": step}


@sound
def one_class_anomaly_detection():
    def step(model, batch, state):
        return (model(batch[0]) - 1).pow(2).mean()

    return {
        "model": network(classes=4),
        "train": [(x, torch.zeros(len(x), dtype=torch.long)) for x, _ in images()],
        "step": step,
    }


@sound
def hinge_loss():
    return {"model": network(), "train": images(), "loss": "hinge"}


@sound
def dice_on_logits():
    train = [(torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8)))]
    return {"model": nn.Conv2d(3, 3, 1), "train": train, "loss": "dice"}


@sound
def integers_as_amounts():
    generator = torch.Generator().manual_seed(0)
    train = [(x, (y.abs() * 40).long()[:, 0]) for x, y in values(32, batch=16)]
    assert generator is not None
    return {"model": dense(), "train": train, "loss": "mse"}


@sound
def one_last_sample_without_batch_norm():
    data = TensorDataset(torch.randn(17, 3, 8, 8), torch.arange(17) % 3)
    return {"model": network(), "train": DataLoader(data, 8, shuffle=True)}


@sound
def a_last_sample_with_batch_norm_over_pixels():
    data = TensorDataset(torch.randn(17, 3, 8, 8), torch.arange(17) % 3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    return {"model": model, "train": DataLoader(data, 8, shuffle=True)}


@sound
def lr_of_1_for_a_linear_model():
    return {"model": nn.Linear(4, 1), "train": values(), "loss": "mse", "optimizer": "sgd", "lr": 0.5}


@sound
def zero_weights_of_a_linear_model():
    model = nn.Linear(4, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return {"model": model, "train": values(), "loss": "mse", "optimizer": "sgd", "lr": 0.1}


@sound
def dropout_of_a_half():
    return {"model": nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3)), "train": images()}


@sound
def log_softmax_into_cross_entropy():
    return {"model": network(nn.LogSoftmax(1)), "train": images()}


@sound
def temperature_before_cross_entropy():
    return {"model": Wrapped(lambda m, x: F.normalize(m(x), dim=1) * 10), "train": images()}


@sound
def binary_by_mse_of_0_and_1():
    return {"model": dense(), "train": [(x, y.long()) for x, y in bits()], "loss": "mse"}


@sound
def ranking_compares_every_pair():
    def step(model, batch, state):
        scores = model(batch[0])
        return F.softplus(-(scores - scores.T) * torch.sign(batch[1] - batch[1].T)).mean()

    return {"model": dense(), "train": values(), "step": step}


@sound
def a_similarity_matrix_of_a_batch():
    def step(model, batch, state):
        out = F.normalize(model(batch[0]), dim=1)
        same = (batch[1][:, None] == batch[1]).float()
        return (out @ out.T - same).pow(2).mean()

    return {"model": network(classes=8), "train": images(), "step": step}


@sound
def distances_to_centres():
    centres = torch.randn(3, 8)

    def step(model, batch, state):
        return F.cross_entropy(-torch.cdist(model(batch[0]), centres), batch[1])

    return {"model": network(classes=8), "train": images(), "step": step}


@sound
def a_variational_autoencoder():
    class Coder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.decode = nn.Linear(4, 4), nn.Linear(2, 4)

    def step(model, batch, state):
        mean, logs = model.encode(batch[0]).chunk(2, 1)
        outputs = model.decode(mean + torch.randn_like(mean) * (logs / 2).exp())
        return F.mse_loss(outputs, batch[0]) - 0.05 * (1 + logs - mean**2 - logs.exp()).mean()

    return {"model": Coder(), "train": values(), "step": step}


@sound
def a_gaussian_likelihood_below_zero():
    def step(model, batch, state):
        mean, logs = model(batch[0]).chunk(2, 1)
        return F.gaussian_nll_loss(mean, batch[1], logs.exp() * 1e-2)

    return {"model": dense(outputs=2), "train": values(), "step": step}


@sound
def distillation():
    teacher = network().eval()

    def step(model, batch, state):
        outputs = model(batch[0])
        with torch.no_grad():
            wanted = teacher(batch[0]).softmax(1)
        return F.kl_div(outputs.log_softmax(1), wanted, reduction="batchmean"), outputs, batch[1]

    return {"model": network(), "train": images(), "step": step}


@sound
def focal_loss():
    def loss(outputs, targets):
        each = F.cross_entropy(outputs, targets, reduction="none")
        return ((1 - (-each).exp()) ** 2 * each).mean()

    return {"model": network(), "train": images(), "loss": loss}


@sound
def entropy_regularised():
    def loss(outputs, targets):
        p = outputs.softmax(1)
        return F.cross_entropy(outputs, targets) + 0.1 * (p * p.clamp(1e-6).log()).sum(1).mean()

    return {"model": network(), "train": images(), "loss": loss}


@sound
def quantile_loss():
    def loss(outputs, targets):
        over = targets - outputs
        return torch.maximum(0.9 * over, -0.1 * over).mean()

    return {"model": dense(), "train": values(), "loss": loss}


@sound
def reward_is_maximised():
    def step(model, batch, state):
        chances = model(batch[0]).log_softmax(1)
        action = chances.detach().argmax(1)
        reward = (action == batch[1]).float() - 0.5
        return -(reward * chances.gather(1, action[:, None])[:, 0]).mean()

    return {"model": network(), "train": images(), "step": step}


@sound
def a_batch_of_as_many_values_as_samples():
    return {"model": dense(outputs=8), "train": [(x, torch.rand(8, 8)) for x, _ in values()], "loss": "mse"}


@sound
def a_pretrained_looking_model_with_a_low_loss():
    model = nn.Sequential(nn.Linear(4, 2))
    nn.init.constant_(model[0].weight, 0)
    model[0].weight.data[1, 0] = 10.0
    train = [(x, y[:, 0].long()) for x, y in bits()]
    return {"model": model, "train": train}


@sound
def wgan_clip_and_rmsprop():
    return {"model": network(), "train": images(), "optimizer": "rmsprop", "lr": 5e-5, "clip_norm": 0.01}


@sound
def sgd_with_small_clip():
    return {"model": network(), "train": images(), "optimizer": "sgd", "lr": 0.1, "clip_norm": 0.1}


@sound
def drop_last_of_a_few():
    data = TensorDataset(torch.randn(25, 3, 8, 8), torch.arange(25) % 3)
    return {"model": network(), "train": DataLoader(data, 8, shuffle=True), "val": DataLoader(data, 8, drop_last=True)}


@sound
def a_step_that_looks_in_evaluation_mode_and_goes_back():
    def step(model, batch, state):
        mode = model.training
        model.eval()
        with torch.no_grad():
            wanted = model(batch[0]).argmax(1)
        model.train(mode)
        return F.cross_entropy(model(batch[0]), batch[1]) + 0.1 * F.cross_entropy(model(batch[0]), wanted)

    return {"model": network(), "train": images(), "val": images(), "step": step}


@sound
def a_teacher_inside_is_kept_in_evaluation_mode():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = network(), network().requires_grad_(False)

        def forward(self, x):
            self.teacher.eval()
            return self.student(x) + 0 * self.teacher(x).detach()

    return {"model": Net(), "train": images(), "val": images()}
