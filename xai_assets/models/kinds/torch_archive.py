"""What may be in a PyTorch archive for torch to be asked to load it.

Belongs here: judging the files of an archive before torch sees them. Does not belong here: loading (see `torch`).

`torch.export.load` (2.13) unpickles weights and constants that the archive marks as pickled, falls back to a full
unpickle of sample inputs, loads compiled libraries, evaluates size expressions as Python, and resolves operators to
any attribute of torch. A TorchScript program may call `torch.save`. So only archives whose tensors are plain bytes and
whose programs call nothing but operators on tensors are accepted. A program stays a program all the same: pin its hash.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

_MEMBERS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json|archive_format|archive_version|byteorder|version|\.data/\w+"
)
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|torch\.sym_\w+|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|ge|gt|le|lt|and_|or_|getitem)"
)
_SYMBOL = re.compile(r"Symbol\('[su]\d+'(, (positive|integer|nonnegative)=True)*\)")
_SIZES = re.compile(
    r"(\b([su]\d+|\d+(\.\d+)?|Add|Mul|Pow|Integer|Rational|Max|Min|Mod|FloorDiv|PythonMod|CleanDiv|CeilDiv|floor|ceiling"
    r"|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|True|False|oo|int_oo)\b|[\s(),+\-*/<>=&|~])*"
)
_FILE_CALLS = re.compile(r"\b(save|load|from_file|open)\s*\(")


class UnsafeArchiveError(Exception):
    """Loading or running the archive would do more than compute with tensors."""


def is_exported(members: list[str]) -> bool:
    """Whether an archive with these files was written by torch.export.save."""
    return any(m.endswith(("archive_format", "serialized_exported_program.json")) for m in members)


def is_scripted(members: list[str]) -> bool:
    """Whether an archive with these files was written by torch.jit.save."""
    return any(m.endswith("/constants.pkl") for m in members) and any("/code/" in m for m in members)


def check_exported(raw: bytes, restricted_load: Any) -> None:
    """Check an archive of `torch.export.save`.

    restricted_load: reads the sample inputs (bytes) without running anything; it must raise on all but plain tensors.

    Raises
    ------
    UnsafeArchiveError
        Naming what torch would have to run; and what damaged archives lead to: KeyError, ValueError, BadZipFile.
    """
    files = _files(raw)
    odd = sorted(name for name in files if not _MEMBERS.fullmatch(name))
    if odd:
        raise UnsafeArchiveError(f"the archive holds {', '.join(odd[:5])}; export and save the module with this torch")
    for kind in ("weights", "constants"):
        for name, payload in json.loads(files[f"data/{kind}/model_{kind}_config.json"])["config"].items():
            if payload["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
                raise UnsafeArchiveError(f"'{name}' of the archive's {kind} is a pickle")
    try:
        restricted_load(files["data/sample_inputs/model.pt"])
    except Exception as error:  # torch's UnpicklingError, and whatever damage leads to
        raise UnsafeArchiveError("its sample inputs are not plain tensors") from error
    _check_program(json.loads(files["models/model.json"]))


def check_scripted(raw: bytes) -> None:
    """Check an archive of `torch.jit.save`. Raises UnsafeArchiveError where its program reads or writes files."""
    for name, content in _files(raw).items():
        if name.startswith("code/") and name.endswith(".py") and (found := _FILE_CALLS.search(content.decode())):
            raise UnsafeArchiveError(f"its program calls {found[0]}…) in {name}")


def _files(raw: bytes) -> dict[str, bytes]:
    """Content by name without the archive's root folder."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/")]
        if len({n.split("/", 1)[0] for n in names}) != 1 or len(set(names)) != len(names):
            raise UnsafeArchiveError("the archive has not one root folder with every file once")
        return {name.split("/", 1)[-1]: archive.read(name) for name in names}


def _check_program(program: Mapping[str, Any]) -> None:
    for key, value in _pairs(program):
        if key == "expr_str" and not _SIZES.fullmatch(_SYMBOL.sub("1", str(value))):
            raise UnsafeArchiveError(f"a size is the expression {value!r}")
        if key == "nodes":
            for node in value:
                if not _OPERATORS.fullmatch(str(node["target"])):
                    raise UnsafeArchiveError(f"its program calls {node['target']}, which is no operator on tensors")


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key, inner
            yield from _pairs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(inner)
