"""Sound programs in which a gradient is missing, zero or small on purpose."""

import copy

import torch
import torch.nn.functional as F
from corpus import Wrapped, bits, dense, images, network, sound, values
from torch import nn
from torch.optim import Adam


class Residual(nn.Module):
    """Blocks whose last layer, or whose gate, is zero at first."""

    def __init__(self, zero, blocks=3):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)) for _ in range(blocks)
        )
        self.gates = (
            nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(blocks)) if zero == "gate" else [1] * blocks
        )
        for block in self.blocks if zero == "norm" else ():
            nn.init.zeros_(block[1].weight)

    def forward(self, x):
        x = self.stem(x)
        for gate, block in zip(self.gates, self.blocks, strict=True):
            x = x + gate * block(F.relu(x))
        return self.head(x.flatten(1))


@sound
def residual_blocks_with_a_norm_of_zero():
    return {"model": Residual("norm"), "train": images()}


@sound
def residual_blocks_with_a_gate_of_zero():
    return {"model": Residual("gate", 6), "train": images()}


@sound
def a_gate_of_zero_and_a_head_of_zero():
    model = Residual("gate")
    nn.init.zeros_(model.head.weight)
    return {"model": model, "train": images()}


@sound
def adaptive_norms_of_zero_and_an_end_of_zero():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mix, self.modulate = (
                nn.LayerNorm(8, elementwise_affine=False),
                nn.Linear(8, 8),
                nn.Linear(8, 24),
            )
            nn.init.zeros_(self.modulate.weight), nn.init.zeros_(self.modulate.bias)

        def forward(self, x, c):
            shift, scale, gate = self.modulate(c).chunk(3, 1)
            return x + gate * F.gelu(self.mix(self.norm(x) * (1 + scale) + shift))

    class Dit(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.condition, self.stem = nn.Linear(4, 8), nn.Linear(4, 8)
            self.blocks, self.end = nn.ModuleList(Block() for _ in range(3)), nn.Linear(8, 1)
            nn.init.zeros_(self.end.weight), nn.init.zeros_(self.end.bias)

        def forward(self, x):
            c, x = F.silu(self.condition(x)), self.stem(x)
            for block in self.blocks:
                x = block(x, c)
            return self.end(x)

    return {"model": Dit(), "train": values(), "loss": "mse"}


@sound
def low_rank_adapters_that_begin_at_zero():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.base = network().requires_grad_(False)
            self.down, self.up = nn.Linear(192, 4, bias=False), nn.Linear(4, 3, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x):
            return self.base(x) + self.up(self.down(x.flatten(1)))

    return {"model": Adapted(), "train": images()}


@sound
def a_copy_of_a_network_behind_zero_convolutions():
    class Control(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.base, self.head = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False), nn.Linear(256, 3)
            self.copy, self.zero = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
            nn.init.zeros_(self.zero.weight), nn.init.zeros_(self.zero.bias)

        def forward(self, x):
            return self.head(F.relu(self.base(x) + self.zero(self.copy(x))).flatten(1))

    return {"model": Control(), "train": images()}


@sound
def a_frozen_backbone():
    model = network()
    model[0].requires_grad_(False)
    return {"model": model, "train": images()}


@sound
def a_frozen_backbone_without_a_graph():
    def forward(m, x):
        with torch.no_grad():
            x = m[1](m[0](x))
        return m[3](x.flatten(1))

    model = network()
    model[0].requires_grad_(False)
    return {"model": Wrapped(forward, model), "train": images()}


@sound
def a_frozen_critic_at_the_end():
    critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).requires_grad_(False)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.maker, self.critic = nn.Linear(4, 4), critic

        def forward(self, x):
            return self.critic(self.maker(x))

    def step(model, batch, state):
        return F.softplus(-model(batch[0])).mean()

    return {"model": Both(), "train": values(), "step": step}


@sound
def a_classifier_of_fixed_directions():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = network(classes=8), nn.Linear(8, 3, bias=False)
            self.head.weight.data = F.normalize(torch.randn(3, 8), dim=1) * 5
            self.head.requires_grad_(False)

        def forward(self, x):
            return self.head(F.normalize(self.body(x), dim=1))

    return {"model": Fixed(), "train": images()}


@sound
def only_the_biases_are_trained():
    model = network()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith("bias")
    return {"model": model, "train": images()}


@sound
def layers_in_a_list_that_are_attributes_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 1)
            self.order = [self.a, self.b]
            self.named = {"a": self.a, "b": self.b}

        def forward(self, x):
            for layer in self.order:
                x = layer(x)
            return x

    return {"model": Net(), "train": values(), "loss": "mse"}


@sound
def a_teacher_in_a_list_so_that_it_is_not_saved():
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()
            self.teacher = [network().eval().requires_grad_(False)]

        def forward(self, x):
            return self.net(x)

    def step(model, batch, state):
        wanted = model.teacher[0](batch[0]).softmax(1)
        return F.cross_entropy(model(batch[0]), wanted)

    return {"model": Student(), "train": images(), "step": step}


@sound
def a_teacher_beside_the_model_with_a_graph():
    teacher = network().eval()

    def step(model, batch, state):
        return F.mse_loss(model(batch[0]), teacher(batch[0]))

    return {"model": network(), "train": images(), "step": step}


@sound
def a_moving_average_of_the_model_as_target():
    class Byol(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.online, self.predict = network(classes=8), nn.Linear(8, 8)
            self.target = copy.deepcopy(self.online).requires_grad_(False)

    def step(model, batch, state):
        p = F.normalize(model.predict(model.online(batch[0])), dim=1)
        with torch.no_grad():
            z = F.normalize(model.target(batch[0]), dim=1)
        return (2 - 2 * (p * z).sum(1)).mean()

    return {"model": Byol(), "train": images(), "step": step}


@sound
def a_penalty_on_the_gradient_of_the_inputs():
    def step(model, batch, state):
        x = batch[0].clone().requires_grad_()
        out = model(x)
        if not out.requires_grad:
            return F.mse_loss(out, batch[1])
        slope = torch.autograd.grad(out.sum(), x, create_graph=True)[0]
        return F.mse_loss(out, batch[1]) + (slope.norm(dim=1) - 1).pow(2).mean()

    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return {"model": model, "train": values(), "step": step}


@sound
def adversarial_training():
    def step(model, batch, state):
        x, y = batch
        shift = torch.zeros_like(x, requires_grad=True)
        with torch.enable_grad():
            slope = torch.autograd.grad(F.cross_entropy(model(x + shift), y), shift)[0]
        return F.cross_entropy(model(x + 0.1 * slope.sign()), y)

    return {"model": network(), "train": images(), "step": step}


@sound
def a_straight_through_estimator():
    def forward(m, x):
        h = m[1](m[0](x))
        return m[3]((h + (h.round() - h).detach()).flatten(1))

    return {"model": Wrapped(forward), "train": images()}


@sound
def a_stop_gradient_on_a_second_view():
    def step(model, batch, state):
        first = model(batch[0])
        second = model(batch[0] + 0.1 * torch.randn_like(batch[0]))
        return -F.cosine_similarity(first, second.detach()).mean() - F.cosine_similarity(second, first.detach()).mean()

    return {"model": network(classes=8), "train": images(), "step": step}


@sound
def a_hinge_that_is_satisfied():
    def step(model, batch, state):
        out = model(batch[0])
        return F.relu(out.pow(2).mean() - 1000)

    return {"model": dense(), "train": values(), "step": step}


@sound
def shared_weights_of_encoder_and_decoder():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.encode, self.decode = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.decode.weight = self.encode.weight

        def forward(self, x):
            return self.decode(torch.tanh(self.encode(x)))

    return {"model": Tied(), "train": [(x, x) for x, _ in values()], "loss": "mse"}


@sound
def experts_of_which_some_get_no_sample():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.gate = nn.Linear(4, 8), nn.Linear(8, 4)
            self.experts = nn.ModuleList(nn.Linear(8, 1) for _ in range(4))

        def forward(self, x):
            x = F.relu(self.stem(x))
            weights = self.gate(x).softmax(1)
            best = F.one_hot(weights.argmax(1), 4)
            best[:, 3] = 0
            outputs = torch.cat([expert(x) for expert in self.experts], 1)
            return (outputs * weights * best).sum(1, keepdim=True)

    return {"model": Experts(), "train": values(), "loss": "mse"}


@sound
def spectral_norm():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 1))
    return {"model": model, "train": values(), "loss": "mse"}


@sound
def ten_layers_with_tanh():
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Linear(8, 8), nn.Tanh())]
    return {"model": nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, 1)), "train": bits(), "loss": "bce"}


@sound
def three_layers_with_sigmoids_as_in_1998():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 20), nn.Sigmoid()),
        *(nn.Linear(20, 10), nn.Sigmoid(), nn.Linear(10, 3)),
    )
    return {"model": model, "train": images()}


@sound
def a_linear_model_that_begins_at_zero():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    nn.init.zeros_(model[1].weight), nn.init.zeros_(model[1].bias)
    return {"model": model, "train": images()}


@sound
def a_mean_filter_that_is_learned_further():
    conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    nn.init.constant_(conv.weight, 1 / 9)
    return {"model": nn.Sequential(conv, *network()), "train": images()}


@sound
def a_head_beside_the_model_in_the_same_optimizer():
    head = nn.Linear(8, 3)
    model = network(classes=8)

    def step(model, batch, state):
        return F.cross_entropy(head(model(batch[0])), batch[1])

    optimizer = Adam([{"params": model.parameters()}, {"params": head.parameters(), "lr": 1e-2}])
    return {"model": model, "train": images(), "step": step, "optimizer": optimizer}
