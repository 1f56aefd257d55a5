"""What the gradient does not reach, and what cannot learn."""

import torch
import torch.nn.functional as F
from corpus import Wrapped, dense, images, mistake, network, values
from torch import nn
from torch.optim import SGD, Adam


class Net(nn.Module):
    """A classifier whose middle is made by a function."""

    def __init__(self, make, run):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 3)
        self.run = run
        make(self)

    def forward(self, x):
        return self.head(self.run(self, F.relu(self.first(x))).flatten(1))


def _nothing(self):
    pass


def _convs(count=2):
    return [nn.Conv2d(4, 4, 3, padding=1) for _ in range(count)]


def _one_after_another(self, x):
    for layer in self.layers.values() if hasattr(self.layers, "values") else self.layers:
        x = F.relu(layer(x))
    return x


@mistake("CV603")
def layers_in_a_list(wrong):
    def make(self):
        self.layers = _convs() if wrong else nn.ModuleList(_convs())

    return {"model": Net(make, _one_after_another), "train": images()}


@mistake("CV603")
def layers_in_a_tuple(wrong):
    def make(self):
        self.layers = tuple(_convs()) if wrong else nn.Sequential(*_convs())

    return {"model": Net(make, _one_after_another), "train": images()}


@mistake("CV603")
def layers_in_a_dict(wrong):
    def make(self):
        layers = {f"conv{place}": layer for place, layer in enumerate(_convs())}
        self.layers = layers if wrong else nn.ModuleDict(layers)

    return {"model": Net(make, _one_after_another), "train": images()}


@mistake("CV603")
def layers_in_a_list_of_lists_of_blocks(wrong):
    def make(self):
        blocks = [[nn.Sequential(*_convs())], [nn.Sequential(*_convs())]]
        self.layers = blocks if wrong else nn.ModuleList(nn.Sequential(*each) for each in blocks)

    def run(self, x):
        for block in self.layers:
            x = block[0](x)
        return x

    return {"model": Net(make, run), "train": images()}


class Helper:
    """No module."""

    def __init__(self):
        self.conv = nn.Conv2d(4, 4, 1)


class HelperModule(nn.Module, Helper):
    def __init__(self):
        nn.Module.__init__(self)
        self.conv = nn.Conv2d(4, 4, 1)


@mistake("CV603")
def a_layer_in_an_object_that_is_no_module(wrong):
    def make(self):
        self.helper = Helper() if wrong else HelperModule()

    return {"model": Net(make, lambda self, x: self.helper.conv(x)), "train": images()}


@mistake("CV603")
def a_layer_in_a_closure(wrong):
    conv = nn.Conv2d(4, 4, 1)

    def make(self):
        self.act = (lambda x: F.relu(conv(x))) if wrong else nn.Sequential(conv, nn.ReLU())

    return {"model": Net(make, lambda self, x: self.act(x)), "train": images()}


@mistake("CV603")
def a_plain_tensor_as_weight(wrong):
    def make(self):
        weight = torch.ones(1, 4, 1, 1, requires_grad=True)
        self.scale = weight if wrong else nn.Parameter(weight.detach())

    return {"model": Net(make, lambda self, x: x * self.scale), "train": images()}


@mistake("CV603")
def plain_tensors_in_a_list(wrong):
    def make(self):
        weights = [torch.randn(1, 4, 1, 1, requires_grad=True) for _ in range(2)]
        self.scales = weights if wrong else nn.ParameterList(one.detach() for one in weights)

    return {"model": Net(make, lambda self, x: x * self.scales[0] + self.scales[1]), "train": images()}


@mistake("CV603")
def parameters_in_a_list(wrong):
    def make(self):
        weights = [nn.Parameter(torch.randn(1, 4, 1, 1)) for _ in range(2)]
        self.scales = weights if wrong else nn.ParameterList(weights)

    return {"model": Net(make, lambda self, x: x * self.scales[0] + self.scales[1]), "train": images()}


@mistake("CV603")
def a_buffer_that_requires_a_gradient(wrong):
    def make(self):
        if wrong:
            self.register_buffer("shift", torch.zeros(1, 4, 1, 1, requires_grad=True))
        else:
            self.shift = nn.Parameter(torch.zeros(1, 4, 1, 1))

    return {"model": Net(make, lambda self, x: x + self.shift), "train": images()}


@mistake("CV603")
def a_layer_made_in_forward(wrong):
    def make(self):
        self.conv = nn.Conv2d(4, 4, 1)

    return {"model": Net(make, lambda self, x: (nn.Conv2d(4, 4, 1) if wrong else self.conv)(x)), "train": images()} | (
        {"ignore": ("CV601",)} if wrong else {}
    )


@mistake("CV603")
def a_head_made_in_the_step(wrong):
    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.out = network(classes=8), None if wrong else nn.Linear(8, 3)

        def forward(self, x):
            return self.body(x)

    def step(model, batch, state):
        head = nn.Linear(8, 3) if wrong else model.out
        return F.cross_entropy(head(model(batch[0])), batch[1])

    return {"model": WithHead(), "train": images(), "step": step}


@mistake("CV603")
def a_head_beside_the_model(wrong):
    head = nn.Linear(8, 3)

    def step(model, batch, state):
        return F.cross_entropy(head(model(batch[0])), batch[1])

    model = network(classes=8)
    more = {} if wrong else {"optimizer": Adam([*model.parameters(), *head.parameters()])}
    return {"model": model, "train": images(), "step": step, **more}


@mistake("CV604")
def the_head_frozen_and_the_backbone_trained(wrong):
    model = network()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("0") if wrong else name.startswith("3")
    return {"model": model, "train": images()}


@mistake("CV604")
def the_new_head_frozen_after_it_was_put_in(wrong):
    model = Net(_nothing, lambda self, x: x)
    model.head = nn.Linear(256, 3)
    (model.head if wrong else model.first).requires_grad_(False)
    return {"model": model, "train": images()}


@mistake("CV602")
def an_optimizer_without_the_new_head(wrong):
    model = network()
    head = nn.Linear(256, 3)
    if not wrong:
        model[3] = head
    optimizer = Adam(model.parameters())
    model[3] = head
    return {"model": model, "train": images(), "optimizer": optimizer}


@mistake("CV602")
def an_optimizer_of_the_head_only(wrong):
    model = network()
    if not wrong:
        model[0].requires_grad_(False)
    return {"model": model, "train": images(), "optimizer": SGD(model[3].parameters(), lr=0.1)}


@mistake("CV605")
def a_bias_that_turns_all_units_off(wrong):
    model = network()
    nn.init.constant_(model[0].bias, -100.0 if wrong else 0.1)
    return {"model": model, "train": images()}


@mistake("CV605")
def dead_units_in_the_middle(wrong):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        model[2].bias.fill_(-50.0 if wrong else 0.1)
    return {"model": model, "train": values(), "loss": "mse"}


@mistake("CV605")
def features_times_zero(wrong):
    scale = 0.0 if wrong else 1.0
    return {"model": Net(_nothing, lambda self, x: x * scale), "train": images()}


@mistake("CV605")
def a_sign_in_forward(wrong):
    return {"model": Net(_nothing, lambda self, x: torch.round(x) if wrong else x.round() + x), "train": images()}


@mistake("CV605")
def a_clamp_that_cuts_everything(wrong):
    return {"model": Net(_nothing, lambda self, x: (x + 5).clamp(0, 1 if wrong else 100)), "train": images()}


@mistake("CV606")
def twenty_layers_with_sigmoids(wrong):
    torch.manual_seed(0)
    act = nn.Sigmoid if wrong else nn.ReLU
    layers = [layer for _ in range(20) for layer in (nn.Linear(8, 8), *([] if wrong else [nn.LayerNorm(8)]), act())]
    return {"model": nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, 1)), "train": values(), "loss": "mse"}


@mistake("CV606")
def fifteen_convolutions_with_sigmoids_in_forward(wrong):
    torch.manual_seed(0)
    norms = [nn.Identity() if wrong else nn.BatchNorm2d(4) for _ in range(15)]
    convs = nn.ModuleList(
        nn.Sequential(nn.Conv2d(3 if place == 0 else 4, 4, 3, padding=1), norms[place]) for place in range(15)
    )

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs, self.head = convs, nn.Linear(256, 3)

        def forward(self, x):
            for conv in self.convs:
                x = torch.sigmoid(conv(x)) if wrong else F.relu(conv(x))
            return self.head(x.flatten(1))

    return {"model": Deep(), "train": images()}


def _filled(model, value):
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


@mistake("CV607")
def all_weights_zero(wrong):
    return {"model": _filled(network(), 0.0) if wrong else network(), "train": images()}


@mistake("CV607")
def all_weights_the_same(wrong):
    return {"model": _filled(network(), 0.01) if wrong else network(), "train": images()}


@mistake("CV607")
def weights_of_one_number_with_the_usual_biases(wrong):
    model = network()
    for layer in (model[0], model[3]) if wrong else ():
        nn.init.constant_(layer.weight, 0.01)
    return {"model": model, "train": images()}


@mistake("CV607")
def weights_of_zero_with_the_usual_biases(wrong):
    model = network()
    for layer in (model[0], model[3]) if wrong else ():
        nn.init.zeros_(layer.weight)
    return {"model": model, "train": images()}


@mistake("CV607")
def linear_layers_initialised_to_a_constant(wrong):
    model = dense(outputs=1)

    def init(layer):
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.5) if wrong else nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    return {"model": model.apply(init), "train": values(), "loss": "mse"}


@mistake("CV607")
def two_linear_layers_of_zeros_behind_a_convolution(wrong):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    )
    if wrong:
        _filled(model[3], 0.0), _filled(model[6], 0.0)
    return {"model": model, "train": images()}


@mistake("CV608")
def features_detached(wrong):
    return {"model": Net(_nothing, lambda self, x: x.detach() if wrong else x), "train": images()}


@mistake("CV608")
def data_of_the_features(wrong):
    return {"model": Net(_nothing, lambda self, x: x.data if wrong else x), "train": images()}


@mistake("CV608")
def backbone_without_a_gradient_and_not_frozen(wrong):
    def forward(m, x):
        with torch.no_grad():
            x = m[1](m[0](x))
        return m[3](x.flatten(1))

    model = network()
    if not wrong:
        model[0].requires_grad_(False)
    return {"model": Wrapped(forward, model), "train": images()}


@mistake("CV608")
def features_through_numpy(wrong):
    def run(self, x):
        return torch.from_numpy(x.detach().numpy() * 2) if wrong else x * 2

    return {"model": Net(_nothing, run), "train": images()}


@mistake("CV608")
def a_new_tensor_of_the_features(wrong):
    return {"model": Net(_nothing, lambda self, x: torch.tensor(x.tolist()) if wrong else x), "train": images()}


@mistake("CV402", "CV608", "CV803")
def forward_without_a_gradient(wrong):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            with torch.set_grad_enabled(not wrong):
                return self.inner(x)

    return {"model": Plain(), "train": images()}


@mistake("CV402", "CV608", "CV803")
def outputs_detached_in_the_step(wrong):
    def step(model, batch, state):
        outputs = model(batch[0])
        return F.cross_entropy(outputs.detach() if wrong else outputs, batch[1])

    return {"model": network(), "train": images(), "step": step}


@mistake("CV402", "CV608", "CV803")
def argmax_before_the_loss(wrong):
    def loss(outputs, targets):
        if wrong:
            return (outputs.argmax(1) != targets).float().mean()
        return F.cross_entropy(outputs, targets)

    return {"model": network(), "train": images(), "loss": loss}


@mistake("CV621")
def gradients_kept_from_a_backward_pass_of_a_part(wrong):
    def step(model, batch, state):
        outputs = model(batch[0])
        extra = 0.01 * outputs.pow(2).mean()
        if wrong:
            extra.backward(retain_graph=True)
        return F.cross_entropy(outputs, batch[1]) + extra

    return {"model": network(), "train": images(), "step": step}


@mistake("CV601")
def a_block_that_is_made_and_forgotten(wrong):
    def make(self):
        self.conv2 = nn.Sequential(*_convs(2))

    return {"model": Net(make if wrong else _nothing, lambda self, x: x), "train": images()}


@mistake("CV601")
def the_wrong_layer_called_twice(wrong):
    def make(self):
        self.conv1, self.conv2 = _convs()

    return {"model": Net(make, lambda self, x: (self.conv1 if wrong else self.conv2)(self.conv1(x))), "train": images()}
