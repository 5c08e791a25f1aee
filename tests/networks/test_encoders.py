"""Encoders: names, channels, sizes, stems, and weights that are loaded whole or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewlabel.networks import Encoder, EncoderSettings, HeadedEncoder, first_layers, mlp_head
from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.types import FewlabelError

ensure_torchvision()
import timm  # noqa: E402

SMALL = "test_resnet"  # timm's own network for tests, 0.5 million weights


def build(name: str = SMALL, **settings: object) -> Encoder:
    return Encoder(EncoderSettings(name, **{"size_px": 32, **settings}))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "size_px", "dim"),
    [
        ("resnet18", 32, 512),
        ("resnet50", 32, 2048),
        ("inception_v3", 96, 2048),
        ("vit_tiny_patch16_224", 32, 192),
        ("mobilenetv3_small_050", 32, 1024),  # its `num_features` says 288
    ],
)
def test_features_are_as_wide_as_dim_says(name: str, size_px: int, dim: int, channels: int) -> None:
    encoder = build(name, size_px=size_px, channels=channels)
    assert encoder.training
    assert encoder.dim == dim
    with torch.no_grad():
        assert encoder(torch.rand(2, channels, size_px, size_px)).shape == (2, dim)


def test_residual_blocks_are_open_from_the_start() -> None:
    """timm starts their last scale at 0, which costs short contrastive training hundreds of steps."""
    assert any(not p.any() for p in timm.create_model("resnet18").parameters())
    assert all(p.any() for name, p in build("resnet18").named_parameters() if name.endswith("weight"))


def test_resnet152_builds() -> None:
    with torch.device("meta"):
        encoder = build("resnet152")
    assert encoder.dim == 2048
    assert 57e6 < sum(p.numel() for p in encoder.parameters()) < 59e6


@pytest.mark.parametrize(
    "name", ["resnet50", "resnet101", "wide_resnet50_2", "resnetv2_50x3_bit", "skresnet18", "convnext_atto"]
)
def test_bigger_wider_and_other_networks_build(name: str) -> None:
    with torch.device("meta"):
        encoder = build(name)
    assert encoder.dim >= 320
    layers = encoder.layers()
    assert sum(len(layer) for layer in layers) == len(list(encoder.parameters()))
    assert len(layers) > 4


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    x, found = torch.rand(2, 1, 32, 32), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = Encoder(EncoderSettings(name, 1, 32, checkpointing=checkpointing)).train()
        encoder(x).square().sum().backward()
        found.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 10
    assert all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max())) for a, b in zip(*found, strict=True)
    )


def test_checkpointing_where_it_is_not_to_be_had() -> None:
    with pytest.raises(FewlabelError, match="cannot compute activations once more"):
        Encoder(EncoderSettings("inception_v3", 1, 96, checkpointing=True))


def test_layers_run_from_the_image_upwards() -> None:
    encoder = build("resnet18")
    names = {id(p): name for name, p in encoder.network.named_parameters()}
    order = [[names[id(p)] for p in layer] for layer in encoder.layers()]
    assert order[0][0] == "conv1.weight"
    assert order[-1][0].startswith("layer4.1")
    blocks = [layer[0].rsplit(".", 2)[0] for layer in order[1:]]
    assert blocks == [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


def test_an_encoder_with_the_first_layer_of_its_head() -> None:
    encoder, head = build("resnet10t"), mlp_head(512, 64, 16, layers=3)
    headed = HeadedEncoder(encoder, first_layers(head, 1)).eval()
    head.eval()
    encoder.eval()
    x = torch.rand(2, 1, 32, 32)
    assert headed.dim == 64
    assert torch.equal(headed(x), head[:3](encoder(x)))
    assert headed.layers()[-1][0] is head[0].weight
    assert len(headed.layers()) == len(encoder.layers()) + 1
    assert first_layers(head, 0)(x) is x
    for wrong in (3, -1):
        with pytest.raises(FewlabelError, match="keep from 0 to 2"):
            first_layers(head, wrong)


def test_building_leaves_no_trace_in_the_batch_statistics() -> None:
    norms = [m for m in build().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(int(norm.num_batches_tracked) == 0 for norm in norms)


def test_pixels_are_centred_inside() -> None:
    encoder = build().eval()
    with torch.no_grad():
        plain = encoder.network((torch.full((1, 1, 32, 32), 0.75) - 0.5) / 0.25)
        assert torch.equal(encoder(torch.full((1, 1, 32, 32), 0.75)), plain)


def test_small_stem_keeps_the_resolution() -> None:
    plain, small = build("resnet18"), build("resnet18", small_stem=True)
    assert small.network.conv1.kernel_size == (3, 3)
    assert small.network.conv1.in_channels == 1
    with torch.no_grad():
        sides = [e.network.forward_features(torch.rand(2, 1, 32, 32)).shape[-1] for e in (plain, small)]
    assert sides == [1, 4]
    with pytest.raises(FewlabelError, match=r"vit_tiny_patch16_224 has no 7x7 stem"):
        build("vit_tiny_patch16_224", small_stem=True)


def test_unknown_name_gives_close_ones() -> None:
    with pytest.raises(FewlabelError, match=r"no encoder called 'resnet81'.*Did you mean .*resnet18"):
        build("resnet81")
    with pytest.raises(FewlabelError, match=r"no encoder called '': give a network name that timm knows\.$"):
        build("")
    with pytest.raises(FewlabelError, match=r"'resnet18\.made_up' cannot be built"):
        build("resnet18.made_up")


def test_a_size_that_the_network_cannot_take() -> None:
    with pytest.raises(FewlabelError, match=r"inception_v3 cannot take images of 32 px"):
        build("inception_v3")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(timm.create_model(SMALL).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_local_weights_with_three_channels_and_with_one(weights: Path) -> None:
    source = timm.create_model(SMALL)
    source.load_state_dict(load_file(weights))
    source.reset_classifier(0)
    source.eval()
    coloured = build(channels=3, weights=str(weights)).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(coloured.network(x), source(x), atol=1e-5)
        assert torch.equal(coloured.std, torch.full((3, 1, 1), 0.5))  # as its weights ask for; 0.25 without
        grey = build(channels=1, weights=str(weights)).eval()
        assert torch.allclose(grey.network(x[:, :1]), source(x[:, :1].expand(-1, 3, -1, -1)), atol=1e-4)


def test_weights_of_another_network_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match=r"do not fit resnet18"):
        build("resnet18", weights=str(weights))
    save_file({"unknown": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(FewlabelError, match=r"say nothing of \d+ of its layers"):
        build(weights=str(tmp_path / "other.safetensors"))


def test_half_of_the_weights_is_not_enough(weights: Path, tmp_path: Path) -> None:
    state = timm.create_model(SMALL).state_dict()
    half = {key: value for key, value in state.items() if not key.startswith("layer4")}
    save_file(half, tmp_path / "half.safetensors")
    with pytest.raises(FewlabelError, match=r"such as layer4"):
        build(weights=str(tmp_path / "half.safetensors"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "pytorch_model.bin"])
def test_pickles_are_refused_by_name(name: str, tmp_path: Path) -> None:
    torch.save({}, tmp_path / name)
    with pytest.raises(FewlabelError, match=r"not a \.safetensors file"):
        build(weights=str(tmp_path / name))


def test_a_pickle_in_disguise_and_a_missing_file(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "disguised.safetensors")
    with pytest.raises(FewlabelError, match=r"do not fit test_resnet"):
        build(weights=str(tmp_path / "disguised.safetensors"))
    with pytest.raises(FewlabelError, match=r"no weights file"):
        build(weights=str(tmp_path / "nowhere.safetensors"))


def test_weights_from_the_hub(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(weights)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    named = build(weights="hf-hub:somebody/something")
    default = build(weights="default")
    assert asked[0] == ("somebody/something", "model.safetensors")
    assert asked[1][0].startswith("timm/test_resnet")
    assert all(torch.equal(a, b) for a, b in zip(named.parameters(), default.parameters(), strict=True))


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, file: str) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(FewlabelError, match=r"somebody/something could not be fetched .*ConnectionError"):
        build(weights="hf-hub:somebody/something")


def test_no_default_weights() -> None:
    with pytest.raises(FewlabelError, match=r"names no pretrained weights for resnet200"):
        build("resnet200", weights="default")
