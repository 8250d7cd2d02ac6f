"""PyTorch archives, for real where torch is installed (`make test-extras`); what needs no torch is tested always."""

import hashlib
import io
import pickle
import warnings
import zipfile

import numpy as np
import pytest

from xai_assets.errors import ModelError
from xai_assets.models.artifact import load_model
from xai_assets.models.content import recognise


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as writing:
        for name in names:
            writing.writestr(name, pickle.dumps(1))
    return out.getvalue()


def test_a_file_of_torch_save_is_refused_as_the_pickle_it_is(rows, tmp_path):
    (tmp_path / "m.pt").write_bytes(archive("m/data.pkl", "m/version", "m/data/0"))
    for kind in ("auto", "torch"):
        with pytest.raises(ModelError, match=r"torch\.save, whose content is a pickle.*torch\.export"):
            load_model(tmp_path / "m.pt", kind, features=rows.numeric)


def test_archives_are_told_apart_by_what_they_hold():
    assert recognise("m", archive("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl")).kind == "torch"
    assert recognise("m", archive("m/archive_format", "m/models/model.json")).kind == "torch"
    assert recognise("m", archive("x.npy")).kind is None
    assert recognise("m", archive("m/data.pkl")).kind is None


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def network(torch):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Dropout(0.9), torch.nn.Linear(4, 1))


def scripted(torch, module, place):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, in favour of torch.export
        torch.jit.save(torch.jit.script(module), place)
    return place


def exported(torch, module, place, rows=7, *, dynamic=True):
    shapes = ({0: torch.export.Dim("rows", min=1)},) if dynamic else None
    torch.export.save(torch.export.export(module.eval(), (torch.zeros(rows, 2),), dynamic_shapes=shapes), place)
    return place


@pytest.mark.extras
@pytest.mark.parametrize("form", ["script", "export"])
def test_output_is_the_margin_and_log_odds_where_models_output_says_probability(rows, torch, network, tmp_path, form):
    write = scripted if form == "script" else exported
    place = write(torch, network, tmp_path / ("m.pt" if form == "script" else "m.pt2"))
    X = rows.numbers.astype(np.float32)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(X)).numpy()[:, 0]
    model = load_model(place, features=rows.numeric)
    np.testing.assert_allclose(model.predict_margin(X), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_output(X), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_output(X, "probability"), 1 / (1 + np.exp(-expected)), atol=1e-6)
    assert model.predict_margin(X).std() > 0.01
    assert (model.kind, model.is_classifier) == ("torch", False)
    assert load_model(place, "torch", features=rows.numeric, output="probability").is_classifier
    assert "no feature names" in model.notes[0]
    with pytest.raises(ModelError, match=r"cannot take 2 rows of the 3 configured features"):
        load_model(place, features=rows.listed)


@pytest.mark.extras
def test_gradients_flow_through_both_forms(rows, torch, network, tmp_path):
    for place in (scripted(torch, network, tmp_path / "m.pt"), exported(torch, network, tmp_path / "m.pt2")):
        module = load_model(place, features=rows.numeric).native
        x = torch.ones(3, 2, requires_grad=True)
        module(x).sum().backward()
        assert x.grad.abs().sum() > 0


@pytest.mark.extras
def test_a_fixed_number_of_rows_and_several_outputs_are_refused(rows, torch, network, tmp_path):
    fixed = exported(torch, network, tmp_path / "m.pt2", dynamic=False)
    with pytest.raises(ModelError, match=r"cannot take 2 rows.*dynamic batch dimension"):
        load_model(fixed, features=rows.numeric)
    wide = scripted(torch, torch.nn.Linear(2, 3), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="more than one output"):
        load_model(wide, features=rows.numeric)


@pytest.mark.extras
def test_float64_modules(rows, torch, tmp_path):
    place = scripted(torch, torch.nn.Linear(2, 1).double(), tmp_path / "m.pt")
    assert load_model(place, features=rows.numeric).predict_margin(np.zeros((2, 2), np.float32)).shape == (2,)


@pytest.mark.extras
@pytest.mark.parametrize("form", ["script", "export"])
def test_truncated_archives(rows, torch, network, tmp_path, refused_wherever_it_ends, form):
    name = "m.pt" if form == "script" else "m.pt2"
    place = (scripted if form == "script" else exported)(torch, network, tmp_path / f"whole-{name}")
    refused_wherever_it_ends(place.read_bytes(), name, rows.numeric, cuts=10)


@pytest.mark.extras
def test_what_torch_save_writes_is_refused_even_when_trusted(rows, torch, network, tmp_path):
    torch.save(network, tmp_path / "m.pt")
    digest = hashlib.sha256((tmp_path / "m.pt").read_bytes()).hexdigest()
    for trust in (False, True):
        with pytest.raises(ModelError, match=r"torch\.save, whose content is a pickle"):
            load_model(tmp_path / "m.pt", sha256=digest, features=rows.numeric, trust_pickle=trust)


@pytest.mark.extras
def test_a_newer_archive_is_refused(rows, torch, network, tmp_path):
    place = scripted(torch, network, tmp_path / "m.pt")
    out = io.BytesIO()
    with zipfile.ZipFile(place) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"99\n" if name.endswith("/version") else old.read(name))
    place.write_bytes(out.getvalue())
    with pytest.raises(ModelError, match="newer torch than the installed one"):
        load_model(place, features=rows.numeric)


def rewritten(place, change) -> bytes:
    """The archive with some of its files changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(place) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name.split("/", 1)[1], old.read(name)))
    return out.getvalue()


class Bomb:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return type(self.victim).touch, (self.victim,)


def replaced(file, old, new):
    return lambda name, raw: raw.replace(old, new) if name == file else raw


EXPORT_ATTACKS = {
    "pickled weight": (
        replaced("data/weights/model_weights_config.json", b'"use_pickle": false', b'"use_pickle": true'),
        "weights is a pickle",
    ),
    "size": (
        replaced("models/model.json", b'"expr_str": "Symbol', b'"expr_str": "__import__(chr(111)) + Symbol'),
        "a size is the expression",
    ),
    "operator": (
        replaced("models/model.json", b"torch.ops.aten.linear.default", b"torch.hub.load"),
        "calls torch.hub.load",
    ),
}


@pytest.mark.extras
@pytest.mark.parametrize("attack", EXPORT_ATTACKS)
def test_an_exported_program_that_would_run_code_never_reaches_torch(
    rows, torch, network, tmp_path, attack, monkeypatch
):
    place = exported(torch, network, tmp_path / "m.pt2")
    change, message = EXPORT_ATTACKS[attack]
    changed = rewritten(place, change)
    assert changed != rewritten(place, lambda name, raw: raw)
    place.write_bytes(changed)
    monkeypatch.setattr(torch.export, "load", None)
    with pytest.raises(ModelError, match=f"refused: loading it could run more.*{message}"):
        load_model(place, features=rows.numeric)


@pytest.mark.extras
@pytest.mark.parametrize("file", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/aotinductor/m/m.so"])
def test_pickles_and_libraries_in_an_exported_archive_are_never_run(rows, torch, network, tmp_path, file):
    place, victim, bomb = exported(torch, network, tmp_path / "m.pt2"), tmp_path / "boom", io.BytesIO()
    torch.save(Bomb(victim), bomb)
    out = io.BytesIO(rewritten(place, lambda name, raw: bomb.getvalue() if name == file else raw))
    with zipfile.ZipFile(out, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        if f"{root}/{file}" not in archive.namelist():
            archive.writestr(f"{root}/{file}", bomb.getvalue())
    place.write_bytes(out.getvalue())
    with pytest.raises(ModelError, match=r"refused: loading it could run more than operators"):
        load_model(place, features=rows.numeric)
    assert not victim.exists()
    torch.load(io.BytesIO(bomb.getvalue()), weights_only=False)
    assert victim.exists(), "the planted pickle must be a working one"


@pytest.mark.extras
def test_a_script_that_writes_files_is_refused(rows, torch, network, tmp_path):
    place = scripted(torch, network, tmp_path / "m.pt")
    attack = rewritten(
        place, lambda name, raw: raw.replace(b"return", b"torch.save(1, 'boom')\n    return") if ".py" in name else raw
    )
    place.write_bytes(attack)
    with pytest.raises(ModelError, match=r"its program calls save\("):
        load_model(place, features=rows.numeric)


@pytest.mark.extras
def test_larger_networks_pass_the_checks(rows, torch, tmp_path):
    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(
                torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 8), torch.nn.GELU(), torch.nn.LayerNorm(8)
            )
            self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            self.shift = torch.ones(1)

        def forward(self, x):
            x = self.body(torch.nan_to_num(x)).unsqueeze(1)
            x = self.attention(x, x, x, need_weights=False)[0]
            return torch.where(x.sum(dim=2) > 0, x.mean(dim=2), x.amax(dim=2) * 0.5).reshape(x.shape[0]) + self.shift

    model = load_model(exported(torch, Wide(), tmp_path / "m.pt2"), features=rows.numeric)
    X = rows.numbers.astype(np.float32)
    one_by_one = np.concatenate([model.predict_margin(X[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(model.predict_margin(X)[:5], one_by_one, atol=1e-5)
