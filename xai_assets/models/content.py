"""What a file is, judged by its bytes and its name, before any library is asked to read it.

Belongs here: signatures of formats, those whose loading runs code among them, and the refusals that follow.
Does not belong here: reading a model (see `kinds`).

Pickles and PyTorch archives run code when they are loaded, and no look at them beforehand rules that out: torch reads
a zip file by rules of its own, unpickles parts of it, imports what they name and compiles the programs in it.
"""

import io
import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xai_assets.errors import ModelError

PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle")
PICKLE_REASON = "loading a pickle runs whatever code the file holds"
SAVE_AGAIN = (
    "save the model in its library's own format and configure that file: booster.save_model('model.ubj'), skops for "
    "scikit-learn, ONNX or torch.export for PyTorch"
)
TRUST = "or, if you trust its origin, set trust_pickle: true and pin its sha256"

FORMATS: Mapping[str, tuple[str, str]] = {
    "xgboost": ("an XGBoost model", "XGBoost's JSON or UBJSON format"),
    "lightgbm": ("a LightGBM model", "LightGBM's text format"),
    "catboost": ("a CatBoost model", "CatBoost's binary format (cbm)"),
    "sklearn": ("a scikit-learn model", "a skops file"),
    "onnx": ("an ONNX model", "an ONNX file"),
    "torch": ("a PyTorch model", "a TorchScript or torch.export archive"),
    "pickle": ("a pickle", "a pickle or joblib file"),
}
"""Kind: what a file of it is, and the format expected of it."""

ZLIB = "a zlib stream (joblib writes compressed pickles so)"
MAGIC: tuple[tuple[bytes, str | None, str], ...] = (
    (b"tree\n", "lightgbm", "a LightGBM text model"),
    (b"CBM1", "catboost", "a CatBoost model"),
    (b"\x1f\x8b", "pickle", "a gzip file (joblib writes compressed pickles so)"),
    (b"BZh", "pickle", "a bzip2 file (joblib writes compressed pickles so)"),
    (b"\xfd7zXZ", "pickle", "an xz file (joblib writes compressed pickles so)"),
    *((bytes([0x78, level]), "pickle", ZLIB) for level in (0x01, 0x5E, 0x9C, 0xDA)),
    (b"\x04\x22\x4d\x18", "pickle", "an LZ4 file (joblib writes compressed pickles so)"),
    (b"\x89HDF", None, "an HDF5 file (Keras)"),
    (b"binf", None, "XGBoost's old binary format, which XGBoost itself no longer reads"),
    (b"version https://git-lfs", None, "a Git LFS pointer: the file itself was not downloaded"),
)
_SUFFIXES = {".skops": "sklearn", ".pt": "torch", ".pt2": "torch", ".pth": "torch", ".onnx": "onnx"}


@dataclass(frozen=True)
class Content:
    """kind: a key of `FORMATS`, or None where no loader reads it. meaning: the finding, for messages."""

    kind: str | None
    meaning: str


def recognise(location: str, raw: bytes) -> Content:
    """What the bytes are; the name decides only where they do not tell.

    >>> recognise("model.ubj", b"CBM1....").kind
    'catboost'
    """
    if not raw:
        return Content(None, "an empty file")
    if raw[:1] == b"\x80" and is_pickle(raw):
        return Content("pickle", "a pickle")
    # Before pickles as text: bytes of other formats often happen to parse as one.
    for magic, kind, meaning in MAGIC:
        if raw.startswith(magic):
            return Content(kind, meaning)
    if raw.startswith(b"PK\x03\x04"):
        return _archive(location, raw)
    if raw.lstrip()[:1] == b"{":
        return Content("xgboost", "a JSON or UBJSON document")
    if is_pickle(raw):
        return Content("pickle", "a pickle")
    # ONNX is a protobuf without a signature: field 1 (the IR version), then the producer, the graph or the opset.
    if raw[:1] == b"\x08" and raw[2:3] in (b"\x12", b"\x1a", b":", b"B"):
        return Content("onnx", "an ONNX model")
    if by_name := _SUFFIXES.get(_suffix(location)):
        return Content(by_name, f"a damaged {_suffix(location)} file")
    return Content(None, f"a file that starts with {raw[:8]!r}")


def is_pickle(raw: bytes) -> bool:
    """Protocols 2 to 5 start with 0x80; the older text protocols are recognised by parsing (nothing is executed)."""
    if raw[:1] == b"\x80" and raw[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if not raw or raw[:1] == b"{" or len(raw) > 50_000_000:
        return False
    try:
        return sum(1 for _ in pickletools.genops(raw)) > 1
    except Exception:  # noqa: BLE001 - pickletools raises many kinds; any means that this is no pickle
        return False


def choose_kind(location: str, content: Content, wanted: str, *, trusted: bool) -> str:
    """The loader for a file, given the configured kind.

    Raises
    ------
    ModelError
        The file is a pickle, by content or by name, or a PyTorch archive, and not trusted; no loader reads it; or it is
        of another kind than the configured one.
    """
    if not trusted and (content.meaning == "a pickle" or location.lower().endswith(PICKLE_SUFFIXES)):
        raise ModelError(
            f"model {location} is a pickle and is refused: {PICKLE_REASON}",
            expected=FORMATS.get(wanted, ("", "a model in its library's own format"))[1],
            next_step=f"{SAVE_AGAIN}; {TRUST}",
        )
    if not trusted and content.kind == "torch" and wanted in ("auto", "torch"):
        raise ModelError(
            f"model {location} is refused: a PyTorch archive can run code when it is loaded",
            expected="trust_pickle: true and the pinned sha256",
            found=content.meaning,
            next_step=f"if you trust its origin, set trust_pickle: true and pin it (sha256sum {location}); or convert "
            "the model to ONNX, which needs no trust",
        )
    if content.kind is not None and wanted in ("auto", content.kind) and (trusted or content.kind != "pickle"):
        return content.kind
    if content.kind == "pickle" and trusted:
        return "pickle"  # of any library: what comes out of it is compared with the configured kind
    what, expected = FORMATS.get(wanted, ("a model file that can be read", "a model in its library's own format"))
    raise ModelError(
        f"model {location} is not {what}",
        expected=expected,
        found=content.meaning,
        next_step=_next_step(content, wanted),
    )


def is_exported(members: Sequence[str]) -> bool:
    """Whether an archive with these files was written by torch.export.save."""
    return any(m.endswith(("archive_format", "serialized_exported_program.json")) for m in members)


def _next_step(content: Content, wanted: str) -> str:
    if wanted != "auto" and content.kind is not None and content.kind != "pickle":
        return f"configure that file with kind: {content.kind} (or leave kind out), or give the right file"
    return f"{SAVE_AGAIN}; {TRUST}" if content.kind == "pickle" else SAVE_AGAIN


def _suffix(location: str) -> str:
    name = location.rsplit("/", 1)[-1]
    return f".{name.rsplit('.', 1)[-1].lower()}" if "." in name else ""


def _archive(location: str, raw: bytes) -> Content:
    """skops, TorchScript, torch.export and torch.save all write zip archives."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return Content(_SUFFIXES.get(_suffix(location)), "a zip archive that is cut off or damaged")
    if "schema.json" in names:
        return Content("sklearn", "a skops file")
    if is_exported(names):
        return Content("torch", "a torch.export archive")
    if any(n.endswith("/constants.pkl") for n in names) and any("/code/" in n for n in names):
        return Content("torch", "a TorchScript archive")
    if any(n.endswith("/data.pkl") for n in names):
        return Content(None, "a zip archive of torch.save, whose content is a pickle: save with torch.export instead")
    return Content(None, "a zip archive of unknown content")
