"""Networks that torch defines: exported by torch as ONNX, or as a state dict, against torch's own forward pass."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bnnverify.formats import import_model, kind_of, onnx  # noqa: E402
from bnnverify.formats.coding import InputCoding  # noqa: E402
from bnnverify.formats.torchstate import Between  # noqa: E402

PIXELS = InputCoding.integers(-8, 7)


class Sign(torch.nn.Module):
    """-1/+1, with +1 at 0."""

    def __init__(self, kind="where"):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "where":
            return torch.where(x >= 0, 1.0, -1.0)
        if self.kind == "bits":
            return (x >= 0).float()
        if self.kind == "twice":
            return 2 * (x >= 0).to(x.dtype) - 1
        return torch.sign(torch.nn.functional.hardtanh(x + 1e-6))


def binarized(module, generator):
    """The module with weights -1/+1 and everything else drawn."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.weight.data = torch.randint(0, 2, layer.weight.shape, generator=generator) * 2.0 - 1
            if layer.bias is not None:
                layer.bias.data = torch.randint(-2, 3, layer.bias.shape, generator=generator).float()
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for name, low, high in (
                ("weight", -2, 2),
                ("bias", -1, 1),
                ("running_mean", -1.5, 1.5),
                ("running_var", 0.5, 9),
            ):
                values = torch.rand(layer.weight.shape, generator=generator) * (high - low) + low
                getattr(layer, name).data = values
    return module.eval()


def convolutional(kind, bias=True):
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3, padding=1, stride=1, bias=bias),
        torch.nn.MaxPool2d(2),
        torch.nn.BatchNorm2d(3),
        Sign(kind),
        torch.nn.Conv2d(3, 4, 2, padding=0 if kind != "bits" else 1, bias=False),
        torch.nn.BatchNorm2d(4),
        Sign(kind),
        torch.nn.Flatten(),
        torch.nn.Linear(4 if kind != "bits" else 36, 5),
        torch.nn.BatchNorm1d(5),
        Sign("where"),
        torch.nn.Linear(5, 3),
    )


def exported(module, x, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, x[:1], path, dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"])
    return path


@pytest.mark.parametrize("kind", ["where", "bits", "twice", "clipped"])
def test_what_torch_exports_as_onnx_is_what_torch_computes(tmp_path, kind):
    generator = torch.Generator().manual_seed(len(kind))
    module = binarized(convolutional(kind), generator)
    x = torch.randint(-8, 8, (40, 2, 4, 4), generator=generator).float()
    imported = onnx.load(exported(module, x, tmp_path / "m.onnx"), coding=PIXELS)
    with torch.no_grad():
        expected = module(x).numpy()
    points = imported.read(x.numpy())
    found = np.array([[float(v) for v in imported.network.scores(p)] for p in points])
    assert np.array_equal(found, expected)
    assert len({tuple(row) for row in expected.tolist()}) > 1


@pytest.mark.parametrize("after", [False, True])
def test_a_state_dict_of_convolutions_is_what_torch_computes(tmp_path, after):
    generator = torch.Generator().manual_seed(7 + after)
    module = binarized(convolutional("where", bias=False), generator)
    if after:
        module = torch.nn.Sequential(*(module[i] for i in (0, 2, 3, 1, 4, 5, 6, 7, 8, 9, 10, 11)))
    names = [name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Conv2d)]
    torch.save(module.state_dict(), tmp_path / "m.pt")
    assert kind_of(tmp_path / "m.pt") == "torch"
    imported = import_model(
        tmp_path / "m.pt",
        coding=PIXELS,
        input_shape=(2, 4, 4),
        between={names[0]: Between(padding=1, pool=2, pool_after_sign=after)},
    )
    x = torch.randint(-8, 8, (40, 2, 4, 4), generator=generator).float()
    with torch.no_grad():
        expected = module(x).numpy()
    points = imported.read(x.numpy())
    assert [[float(v) for v in imported.network.scores(p)] for p in points] == expected.tolist()
    assert "layer '4' was taken with stride 1, without padding and without pooling (--layer)" in imported.notes


def test_the_text_of_a_layer_means_what_it_says():
    assert Between.parse("padding=1,pool=2,pool_after_sign=1") == Between(1, 1, 2, True)
    with pytest.raises(ValueError, match=r"a layer has 'dilation=2', expected numbers for stride"):
        Between.parse("dilation=2")
