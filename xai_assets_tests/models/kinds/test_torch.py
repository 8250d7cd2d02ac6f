"""PyTorch archives, for real where torch is installed (`make test-extras`); what needs no torch is tested always."""

import hashlib
import io
import json
import pickle
import re
import struct
import warnings
import zipfile

import numpy as np
import pytest

from xai_assets.errors import ModelError
from xai_assets.models.artifact import inspect_features, load_model
from xai_assets.models.content import recognise
from xai_assets.models.kinds import torch as torch_kind


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as writing:
        for name in names:
            writing.writestr(name, pickle.dumps(1))
    return out.getvalue()


def trusted(place, features, kind="auto", **options):
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    return load_model(place, kind, digest, features, trust_pickle=True, **options)


SCRIPT = ("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl")
EXPORT = ("m/archive_format", "m/models/model.json")


def two_directories(shown: bytes, hidden: bytes) -> bytes:
    """A zip file with two central directories: Python reads the last one, torch the one that the end record names."""
    body, directories = bytearray(b"PK\x03\x04" + bytes(1 << 16)), []
    for raw in (hidden, shown):
        directory, start = bytearray(), len(body)
        with zipfile.ZipFile(io.BytesIO(raw)) as reading:
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as writing:
                for name in reading.namelist():
                    writing.writestr(name, reading.read(name))
                end = writing.start_dir
        content, position = out.getvalue(), end
        while content[position : position + 4] == b"PK\x01\x02":
            name, extra, comment = struct.unpack_from("<3H", content, position + 28)
            entry = bytearray(content[position : position + 46 + name + extra + comment])
            offset = struct.unpack_from("<I", entry, 42)[0] + start
            directory += entry[:42] + struct.pack("<I", offset) + entry[46:]
            position += len(entry)
        body += content[:end]
        directories.append(directory)
    assert len(directories[0]) == len(directories[1])
    size, count = len(directories[0]), len(zipfile.ZipFile(io.BytesIO(shown)).namelist())
    # Python takes offsets from where the directory is minus where the end record says it is.
    for at in (m.start() for m in re.finditer(b"PK\x01\x02", directories[1])):
        struct.pack_into("<I", directories[1], at + 42, struct.unpack_from("<I", directories[1], at + 42)[0] - size)
    record = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, size, len(body), 0)
    return bytes(body + directories[0] + directories[1] + record)


@pytest.mark.parametrize("name", ["m.pt", "m.pt2", "m.onnx", "m"])
@pytest.mark.parametrize("members", [SCRIPT, EXPORT], ids=["script", "export"])
def test_torch_sees_no_byte_without_trust_and_the_right_hash(rows, tmp_path, monkeypatch, name, members):
    monkeypatch.setattr(torch_kind, "load", lambda *_: pytest.fail("torch was asked to load the archive"))
    harmless = archive(*members)
    for raw in (harmless, two_directories(harmless, harmless)):
        (tmp_path / name).write_bytes(raw)
        assert zipfile.ZipFile(tmp_path / name).read(members[0]) == pickle.dumps(1)
        digest = hashlib.sha256(raw).hexdigest()
        expected = (
            r"PyTorch archive can run code when it is loaded\. Expected: trust_pickle: true and the pinned sha256"
        )
        for kind in ("auto", "torch"):
            for pin in (None, digest):
                with pytest.raises(ModelError, match=expected):
                    load_model(tmp_path / name, kind, pin, rows.numeric)
            with pytest.raises(ModelError, match="without a pinned hash"):
                load_model(tmp_path / name, kind, features=rows.numeric, trust_pickle=True)
            with pytest.raises(ModelError, match="not the pinned file"):
                load_model(tmp_path / name, kind, "0" * 64, rows.numeric, trust_pickle=True)
        with pytest.raises(ModelError, match=expected):
            inspect_features(tmp_path / name)


def test_a_file_of_torch_save_is_refused_as_the_pickle_it_is(rows, tmp_path):
    (tmp_path / "m.pt").write_bytes(archive("m/data.pkl", "m/version", "m/data/0"))
    for kind in ("auto", "torch"):
        with pytest.raises(ModelError, match=r"torch\.save, whose content is a pickle.*torch\.export"):
            load_model(tmp_path / "m.pt", kind, features=rows.numeric)


def test_archives_are_told_apart_by_what_they_hold():
    assert recognise("m", archive(*SCRIPT)).kind == "torch"
    assert recognise("m", archive(*EXPORT)).kind == "torch"
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
    model = trusted(place, rows.numeric)
    np.testing.assert_allclose(model.predict_margin(X), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_output(X), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_output(X, "probability"), 1 / (1 + np.exp(-expected)), atol=1e-6)
    assert model.predict_margin(X).std() > 0.01
    assert (model.kind, model.is_classifier) == ("torch", False)
    assert trusted(place, rows.numeric, "torch", output="probability").is_classifier
    assert "no feature names" in model.notes[0]
    with pytest.raises(ModelError, match=r"cannot take 2 rows of the 3 configured features"):
        trusted(place, rows.listed)


@pytest.mark.extras
def test_gradients_flow_through_both_forms(rows, torch, network, tmp_path):
    for place in (scripted(torch, network, tmp_path / "m.pt"), exported(torch, network, tmp_path / "m.pt2")):
        module = trusted(place, rows.numeric).native
        x = torch.ones(3, 2, requires_grad=True)
        module(x).sum().backward()
        assert x.grad.abs().sum() > 0


@pytest.mark.extras
def test_a_fixed_number_of_rows_and_several_outputs_are_refused(rows, torch, network, tmp_path):
    fixed = exported(torch, network, tmp_path / "m.pt2", dynamic=False)
    with pytest.raises(ModelError, match=r"cannot take 2 rows.*dynamic batch dimension"):
        trusted(fixed, rows.numeric)
    wide = scripted(torch, torch.nn.Linear(2, 3), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="more than one output"):
        trusted(wide, rows.numeric)


@pytest.mark.extras
def test_float64_modules(rows, torch, tmp_path):
    place = scripted(torch, torch.nn.Linear(2, 1).double(), tmp_path / "m.pt")
    assert trusted(place, rows.numeric).predict_margin(np.zeros((2, 2), np.float32)).shape == (2,)


@pytest.mark.extras
@pytest.mark.parametrize("form", ["script", "export"])
def test_truncated_archives(rows, torch, network, tmp_path, form):
    place = (scripted if form == "script" else exported)(torch, network, tmp_path / "m.pt2")
    raw = place.read_bytes()
    trusted(place, rows.numeric)  # the healthy twin
    for end in (*np.linspace(4, len(raw) - 1, 10).astype(int), len(raw) - 1):
        place.write_bytes(raw[:end])
        # what is left may end in the archive of torch.save that holds the sample inputs
        with pytest.raises(ModelError, match=r"damaged|is not a model file that can be read"):
            trusted(place, rows.numeric)


@pytest.mark.extras
def test_what_torch_save_writes_is_refused_even_when_trusted(rows, torch, network, tmp_path):
    torch.save(network, tmp_path / "m.pt")
    digest = hashlib.sha256((tmp_path / "m.pt").read_bytes()).hexdigest()
    for trust in (False, True):
        with pytest.raises(ModelError, match=r"torch\.save, whose content is a pickle"):
            load_model(tmp_path / "m.pt", sha256=digest, features=rows.numeric, trust_pickle=trust)


@pytest.mark.extras
def test_an_archive_of_another_version_is_refused(rows, torch, network, tmp_path):
    script, export = scripted(torch, network, tmp_path / "m.pt"), exported(torch, network, tmp_path / "m.pt2")

    def versions(name, raw):
        if name.endswith("/models/model.json"):
            program = json.loads(raw)
            return json.dumps({**program, "schema_version": {"major": 99, "minor": 0}}).encode()
        return b"99\n" if name.endswith("m/version") else raw

    for place in (script, export):
        place.write_bytes(rewritten(place, versions))
        with pytest.raises(ModelError, match="newer torch than the installed one"):
            trusted(place, rows.numeric)


def rewritten(place, change) -> bytes:
    """The archive with some of its files changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(place) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def planted(raw: bytes) -> bytes:
    """The program, with a call that writes a file."""
    return raw.replace(b"return ", b"torch.save(1, 'planted')\n    return ", 1)


@pytest.mark.extras
def test_an_archive_that_torch_and_python_read_differently_runs_only_when_trusted(rows, torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = scripted(torch, torch.nn.Linear(2, 1), tmp_path / "m.pt")
    harmless = rewritten(place, lambda name, raw: raw)
    evil = rewritten(place, lambda name, raw: planted(raw) if name.endswith(".py") else raw)
    place.write_bytes(two_directories(harmless, evil))
    with zipfile.ZipFile(place) as shown:
        assert not any(b"torch.save" in shown.read(name) for name in shown.namelist())
    with pytest.raises(ModelError, match="can run code when it is loaded"):
        load_model(place, features=rows.numeric)
    assert not (tmp_path / "planted").exists()
    trusted(place, rows.numeric)
    assert (tmp_path / "planted").exists(), "the planted program must be a working one"


@pytest.mark.extras
def test_a_pickled_module_is_put_into_evaluation_mode(rows, torch, network, tmp_path):
    network.train()
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(network))
    model = trusted(tmp_path / "m.pkl", rows.numeric)
    X = rows.numbers.astype(np.float32)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(X)).numpy()[:, 0]
    np.testing.assert_allclose(model.predict_margin(X), expected, atol=1e-6)
    assert not model.native.training


@pytest.mark.extras
def test_larger_networks(rows, torch, tmp_path):
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

    model = trusted(exported(torch, Wide(), tmp_path / "m.pt2"), rows.numeric)
    X = rows.numbers.astype(np.float32)
    one_by_one = np.concatenate([model.predict_margin(X[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(model.predict_margin(X)[:5], one_by_one, atol=1e-5)
