"""The network's shapes, sizes and options, compared with the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from msfnet_runtime import MsfnetError
from msfnet_train.network import TABLE_III, MSFNet, NetworkConfig, TrainingOutput

LIGHT: Mapping[str, Any] = {
    "encoder": "mobilenetv3_small_050",
    "pretrained": False,
    "decoder_width": 0.0625,
    "usf_width": 8,
    "usf_output": 8,
}


def light(**changes: Any) -> MSFNet:
    """Return a small network, seeded."""
    torch.manual_seed(0)
    return MSFNet(NetworkConfig(**{**LIGHT, **changes}))


def millions(module: nn.Module | None) -> float:
    """Return the number of parameters, in millions."""
    return 0.0 if module is None else sum(p.numel() for p in module.parameters()) / 1e6


def paper_network(row: str) -> MSFNet:
    """Return a row of Table III with the paper's encoder, without memory for its weights."""
    usf, attention, _ = TABLE_III[row]
    with torch.device("meta"):
        return MSFNet(NetworkConfig(pretrained=False, usf=usf, attention=attention))


@pytest.mark.parametrize(
    ("row", "expected"), [("baseline", 130.8), ("usf+eda", 135.0), ("usf+eda+batch_loss", 135.0)]
)
def test_the_papers_network_has_the_papers_parameter_count(row: str, expected: float) -> None:
    """SENet154 without its classifier has 113.0 M, the baseline 130.8 M, the full network 135 M."""
    network = paper_network(row)

    assert millions(network.encoder) == pytest.approx(113.0, rel=0.01)
    assert millions(network) == pytest.approx(expected, rel=0.01)


def test_the_rows_of_table_iii_differ_in_the_named_parts_only() -> None:
    """USF adds itself and its connection; both attentions have one size; the last row is a loss."""
    baseline, usf, cbam, eda, full = (paper_network(row) for row in TABLE_III)

    assert baseline.usf is None
    assert baseline.eda is None
    assert usf.usf is not None
    assert usf.eda is None
    join = 128 * 128 * 9 / 1e6  # the USF's 128 channels into the decoder block's 128
    heads = millions(usf.auxiliary)
    assert millions(usf) == pytest.approx(millions(baseline) + millions(usf.usf) + join + heads)
    assert millions(cbam) == pytest.approx(millions(usf) + millions(cbam.eda) + 513 / 1e6)
    assert millions(cbam) == millions(eda) == millions(full)
    assert cbam.config.attention == "cbam_s"
    assert eda.config == full.config
    assert [row.batch_loss for row in TABLE_III.values()] == [False] * 4 + [True]


@pytest.mark.parametrize(("size", "expected"), [((228, 304), (114, 152)), ((385, 513), (193, 257))])
def test_the_papers_input_sizes_give_the_papers_output_sizes(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """The output is the stride-2 grid, rounded up, despite SENet154's pooling without padding."""
    network = paper_network("usf+eda").eval()

    with torch.no_grad():
        output = network(torch.zeros(1, 3, *size, device="meta"))

    assert output.shape == (1, 1, *expected)


@pytest.mark.parametrize("size", [(32, 32), (64, 97), (75, 101), (228, 304)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"usf": False, "attention": "none"},
        {"rdr_merge": "concat", "eda_placement": "inline", "auxiliary_source": "usf"},
    ],
)
def test_the_output_is_half_of_any_input(size: tuple[int, int], changes: dict[str, Any]) -> None:
    """Rounded up for odd sizes, in every variant."""
    network = light(**changes).eval()

    with torch.inference_mode():
        output = network(torch.randn(2, 3, *size))

    assert output.shape == (2, 1, -(-size[0] // 2), -(-size[1] // 2))
    assert output.std() > 0


def test_the_auxiliary_heads_predict_in_training_only() -> None:
    """y2 at stride 8 and y3 at stride 4; evaluation returns the prediction alone."""
    network = light()
    image = torch.randn(2, 3, 64, 96)

    output = network(image)

    assert isinstance(output, TrainingOutput)
    assert [tuple(y.shape) for y in output.auxiliary] == [(2, 1, 8, 12), (2, 1, 16, 24)]
    assert isinstance(network.eval()(image), Tensor)
    assert light(auxiliary=False)(image).auxiliary == ()
    assert len(light(attention="none")(image).auxiliary) == 1
    assert light(attention="none", usf=False)(image).auxiliary == ()


def test_every_parameter_gets_a_gradient() -> None:
    """One backward pass is enough; DDP requires that."""
    network = light()

    output = network(torch.randn(2, 3, 64, 96))
    (output.prediction.square().sum() + sum(y.square().sum() for y in output.auxiliary)).backward()

    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []


def test_the_decoder_sees_the_attention_only_inline() -> None:
    """As a side branch, EDA does not change the decoder's skip connection."""
    image = torch.randn(1, 3, 64, 96)
    seen: dict[str, Tensor] = {}
    for placement in ("side", "inline"):
        network = light(eda_placement=placement).eval()
        network.decoder.stage3.register_forward_hook(
            lambda module, inputs, output, key=placement: seen.update({key: inputs[1]})
        )
        with torch.inference_mode():
            network(image)
            stage3 = network.encoder(image)[2]
            assert network.eda is not None
            attended = network.eda(stage3)
    torch.testing.assert_close(seen["side"], stage3)
    torch.testing.assert_close(seen["inline"], attended)
    assert not torch.allclose(attended, stage3)


def test_an_unknown_encoder_is_refused_with_similar_names() -> None:
    """So that a typing error is easy to correct."""
    with pytest.raises(MsfnetError, match=r"'mobilenetv3_smal_100'.*mobilenetv3_small"):
        light(encoder="mobilenetv3_smal_100")


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("convnext_atto", r"convnext_atto.*strides 4, 8, 16, 32; .*2, 4, 8, 16, 32"),
        ("vgg11", r"vgg11.*strides 1, 2, 4, 8, 16, 32"),
        ("inception_v4", r"inception_v4.*every size"),
    ],
)
def test_an_unsuitable_encoder_is_refused(encoder: str, words: str) -> None:
    """One with other strides, or with a first stage that is not half of the image."""
    with pytest.raises(MsfnetError, match=words):
        light(encoder=encoder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"usf": False}, "attention.*USF"),
        ({"decoder_width": 0.0}, r"decoder_width.*0\.0"),
        ({"usf_width": 7}, "usf_width.*7.*even"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(fields: dict[str, Any], words: str) -> None:
    """The error comes with the configuration, before any weight is made."""
    with pytest.raises(MsfnetError, match=words):
        NetworkConfig(**{**LIGHT, **fields})


def test_encoder_weights_are_loaded_from_a_file(tmp_path: Path) -> None:
    """A classifier's state dict fills the encoder; any other file is refused."""
    torch.manual_seed(5)
    classifier = timm.create_model("mobilenetv3_small_050")
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "text.pth").write_text("no weights")
    stem = classifier.state_dict()["conv_stem.weight"]
    torch.save({"conv_stem.weight": stem}, tmp_path / "part.pth")

    network = light(pretrained=str(tmp_path / "weights.pth"))

    for name, value in network.encoder.state_dict().items():
        torch.testing.assert_close(value, classifier.state_dict()[name])
    for text in ("weights", "root:x:0:0:root:/root:/bin/bash\n"):
        (tmp_path / "text.pth").write_text(text)
        with pytest.raises(MsfnetError, match=r"text\.pth.*no weights"):
            light(pretrained=str(tmp_path / "text.pth"))
    with pytest.raises(MsfnetError, match=r"absent\.pth does not exist"):
        light(pretrained=str(tmp_path / "absent.pth"))
    with pytest.raises(MsfnetError, match=r"part\.pth lacks \d+ .*weights"):
        light(pretrained=str(tmp_path / "part.pth"))
