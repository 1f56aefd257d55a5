"""Parameter groups: every parameter once, decay where it belongs, and a rate for each part."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cvkit
from cvkit import models
from cvkit.errors import ArgumentError, ModelError


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.Flatten(),
        nn.Linear(16, 2),
    )  # fmt: skip


def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, 6, 6, generator=generator), torch.randint(0, 2, (4,), generator=generator)) for _ in range(4)
    ]


def names(model, group):
    known = {id(p): name for name, p in model.named_parameters()}
    return [known[id(p)] for p in group["params"]]


def rates(model, groups):
    return {name: group["lr"] for group in groups for name in names(model, group)}


def theirs(name):
    with torch.device("meta"):
        return torchvision.models.get_model(name)


def test_norms_and_biases_are_not_decayed():
    model = network()
    groups = models.param_groups(model, lr=0.1, weight_decay=0.05)
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in groups] == [
        ("all", 0.1, 0.05),
        ("all, not decayed", 0.1, 0.0),
    ]
    assert names(model, groups[0]) == ["0.weight", "3.weight", "5.weight", "7.weight"]


def test_embeddings_tokens_and_scales_of_torchvisions_are_not_decayed():
    skipped = {}
    for name in ("vit_b_32", "swin_t", "swin_v2_t", "convnext_tiny"):
        model = theirs(name)
        groups = models.param_groups(model, lr=0.1, weight_decay=0.05)
        skipped[name] = [one for group in groups if not group["weight_decay"] for one in names(model, group)]
    assert {"class_token", "encoder.pos_embedding"} <= set(skipped["vit_b_32"])
    assert "encoder.layers.encoder_layer_0.self_attention.in_proj_weight" not in skipped["vit_b_32"]
    assert "features.1.0.attn.relative_position_bias_table" in skipped["swin_t"]
    assert "features.1.0.attn.logit_scale" in skipped["swin_v2_t"]
    assert "features.1.0.layer_scale" in skipped["convnext_tiny"]
    assert not any(one.endswith("attn.qkv.weight") for one in skipped["swin_t"])


def test_a_weight_of_one_output_is_decayed_all_the_same():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    assert names(model, models.param_groups(model, lr=0.1, weight_decay=0.1)[0]) == ["0.weight", "1.weight"]


def test_what_a_model_lists_itself_is_not_decayed():
    model = network()
    model.no_weight_decay = lambda: {"0.weight"}
    assert "0.weight" not in names(model, models.param_groups(model, lr=0.1, weight_decay=0.1)[0])


def test_head_and_backbone_have_their_rates():
    model = network()
    groups = models.param_groups(model, lr=0.1, head_lr=1.0, weight_decay=0.05)
    assert [(one["name"], one["lr"], one["weight_decay"]) for one in groups] == [
        ("head", 1.0, 0.05),
        ("head, not decayed", 1.0, 0.0),
        ("backbone", 0.1, 0.05),
        ("backbone, not decayed", 0.1, 0.0),
    ]
    assert names(model, groups[0]) == ["7.weight"]


def test_rates_fall_from_block_to_block():
    model = network()
    found = rates(model, models.param_groups(model, lr=1.0, layer_decay=0.5))
    assert found == {
        **dict.fromkeys(["7.weight", "7.bias"], 1.0),
        **dict.fromkeys(["5.weight", "5.bias"], 0.5),
        **dict.fromkeys(["3.weight", "3.bias", "4.weight", "4.bias"], 0.25),
        **dict.fromkeys(["0.weight", "0.bias", "1.weight", "1.bias"], 0.125),
    }
    headed = rates(model, models.param_groups(model, lr=1.0, layer_decay=0.5, head_lr=9.0))
    assert headed == {name: 9.0 if name.startswith("7") else rate for name, rate in found.items()}


def test_what_is_outside_all_blocks_has_the_rate_of_the_first():
    model = theirs("vit_b_32")
    found = rates(model, models.param_groups(model, lr=1.0, layer_decay=0.5))
    assert found["class_token"] == found["conv_proj.weight"] == 0.5**13
    assert found["encoder.ln.weight"] == 0.5


def test_the_head_of_every_auxiliary_classifier_has_the_heads_rate():
    with torch.device("meta"):
        model = torchvision.models.googlenet(aux_logits=True, init_weights=False)
    found = rates(model, models.param_groups(model, lr=0.1, head_lr=1.0))
    assert {name for name, rate in found.items() if rate == 1.0 and "weight" in name} == {
        *("fc.weight", "aux1.fc2.weight", "aux2.fc2.weight")
    }


@settings(max_examples=30)
@given(
    head_lr=st.none() | st.floats(0, 1),
    layer_decay=st.floats(0.1, 1),
    weight_decay=st.floats(0, 1),
    frozen=st.booleans(),
)
def test_every_parameter_is_in_one_group_frozen_or_not(head_lr, layer_decay, weight_decay, frozen):
    model = network()
    if frozen:
        models.freeze(model)
    groups = models.param_groups(model, lr=0.1, head_lr=head_lr, layer_decay=layer_decay, weight_decay=weight_decay)
    found = [name for group in groups for name in names(model, group)]
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
    assert all(group["params"] for group in groups)
    torch.optim.AdamW(groups)


def test_shared_parameters_are_taken_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert sum(len(group["params"]) for group in models.param_groups(model, lr=0.1, layer_decay=0.5)) == 5


def test_fit_trains_with_them_under_a_schedule_and_logs_the_heads_rate():
    model = network()
    seen = []

    class Rates(cvkit.Callback):
        def on_gradients_ready(self, state):
            seen.append([group["lr"] for group in state.optimizer.param_groups])

    groups = models.param_groups(model, lr=0.1, head_lr=1.0, weight_decay=0.05)
    result = cvkit.fit(
        model, batches(), epochs=2, optimizer=lambda _: torch.optim.SGD(groups), schedule="linear", callbacks=[Rates()],
        progress=False,
    )  # fmt: skip
    each = len(seen) // 2
    assert seen[each] == pytest.approx([0.5, 0.5, 0.05, 0.05])
    assert result.history["lr"] == [seen[each - 1][0], seen[-1][0]]


def test_numbers_out_of_range_are_refused():
    model = network()
    for label, value in [("lr", -1), ("lr", float("nan")), ("weight_decay", True), ("head_lr", "1")]:
        with pytest.raises(ArgumentError, match=f"^param_groups: {label} cannot be used\n  got: "):
            models.param_groups(model, **{"lr": 0.1, label: value})
    for value in (0, 1.5, True):
        with pytest.raises(ArgumentError) as caught:
            models.param_groups(model, lr=0.1, layer_decay=value)
        assert str(caught.value) == (
            f"param_groups: layer_decay cannot be used\n  got: {value!r}\n"
            "  expected: a number above 0 and at most 1\n"
            "  fix: pass e.g. layer_decay=0.75; 1 gives every block the same rate"
        )


def test_a_rate_for_a_head_that_is_not_there_is_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    assert len(models.param_groups(model, lr=0.1, weight_decay=0.1)) == 2
    with pytest.raises(ModelError, match="no head found in Sequential"):
        models.param_groups(model, lr=0.1, head_lr=1.0)


def test_a_vision_transformers_rates_fall_by_the_same_factor_from_block_to_block():
    model = torchvision.models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=2
    )
    found = rates(model, models.param_groups(model, lr=1.0, layer_decay=0.5, weight_decay=0.05))
    blocks = [found[f"encoder.layers.encoder_layer_{n}.mlp.0.weight"] for n in range(3)]
    assert blocks == [blocks[-1] * 0.25, blocks[-1] * 0.5, blocks[-1]]
    assert found["heads.head.weight"] == 1.0
    assert found["class_token"] == found["conv_proj.weight"] == found["encoder.pos_embedding"] == min(found.values())
