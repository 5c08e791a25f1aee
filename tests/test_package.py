"""The package as a whole: light to import, few names, documented, permissive licences, no pickles."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fewlabel

SOURCE = Path(fewlabel.__file__).parent
HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "sklearn",
    "pyarrow",
    "timm",
    "torchvision",
    "matplotlib",
    "pydicom",
    "PIL",
}
HEAVY |= {"lightning_fabric", "pandas", "safetensors", "jinja2", "faiss", "pg8000"}


def modules_after(code: str) -> set[str]:
    """Names of all modules that are loaded after `code` ran in a fresh interpreter."""
    tail = "\nimport json, sys\nsys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_importing_the_package_is_light() -> None:
    bare, with_package = modules_after(""), modules_after("import fewlabel")
    assert HEAVY & with_package == set()
    assert {name for name in with_package - bare if name.startswith("fewlabel")} == {"fewlabel"}
    assert len(with_package - bare) < 30


def test_help_is_light() -> None:
    code = (
        "import sys\nfrom fewlabel.cli import main\nsys.argv = ['fewlabel', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    loaded = modules_after(code)
    assert HEAVY & loaded == set()
    assert {name.split(".")[1] for name in loaded if name.startswith("fewlabel.")} <= {"cli", "types"}
    assert len(loaded) < 500


def test_types_are_light() -> None:
    assert HEAVY & modules_after("import fewlabel.types, fewlabel; fewlabel.FewlabelError") == set()


def test_few_names_and_all_of_them_lead_somewhere() -> None:
    assert len(fewlabel.__all__) <= 12
    assert sorted(fewlabel.__all__) == list(fewlabel.__all__)
    for name in fewlabel.__all__:
        assert getattr(fewlabel, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fewlabel.nothing
    assert fewlabel.__version__ == importlib.metadata.version("fewlabel")


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def test_modules_and_what_they_offer_are_documented() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    without = []
    for path in sources():
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            without.append(str(path.relative_to(SOURCE)))
        without += [
            f"{path.relative_to(SOURCE)}: {node.name}"
            for node in tree.body
            if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node)
        ]
    assert without == []


def test_names_in_all_exist() -> None:
    for path in sources():
        name = ".".join(["fewlabel", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        if "__all__" in path.read_text():
            module = importlib.import_module(name)
            assert all(hasattr(module, exported) for exported in module.__all__), name


def pickles(source: str) -> list[int]:
    """Lines where a pickle could be loaded."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]}
        else:
            names = set()
        if names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}:
            found.append(node.lineno)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in ("torch.load", "pd.read_pickle", "torch.hub.load", "torch.jit.load"):
                found.append(node.lineno)
            if called in ("np.load", "numpy.load", "np.lib.format.read_array"):
                if options.get("allow_pickle") != "False":
                    found.append(node.lineno)
            elif options.get("allow_pickle") == "True":
                found.append(node.lineno)
    return found


READ_BACK = ("pipeline/exporting.py", "torch.jit.load(str(path))")
"""An export reads the file that it has written itself a moment ago, to compare it."""


def test_no_pickle_is_ever_loaded() -> None:
    found = [
        (str(path.relative_to(SOURCE)), path.read_text().splitlines()[line - 1].strip())
        for path in sources()
        for line in pickles(path.read_text())
    ]
    assert [path for path, _ in found] == [READ_BACK[0]]
    assert READ_BACK[1] in found[0][1]


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "import pickle",
        "from joblib import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, x, allow_pickle=True)",
    ],
)
def test_pickles_are_seen(source: str) -> None:
    assert pickles(source) == [1]
    assert pickles("np.load(path, mmap_mode='r', allow_pickle=False)") == []


def default_dependencies() -> dict[str, importlib.metadata.Distribution]:
    """Every installed distribution that a plain `pip install fewlabel` brings."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = ["fewlabel"]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        for line in found[name].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def stated_licence(distribution: importlib.metadata.Distribution) -> str:
    """The licence in a few words; long texts name the licences of bundled parts too, so they do not count."""
    fields = distribution.metadata
    classifiers = [c for c in fields.get_all("Classifier") or [] if c.startswith("License")]
    short = [
        text for text in (fields.get("License-Expression"), fields.get("License")) if text and len(text) < 100
    ]
    return "; ".join([*short, *classifiers])


def copyleft(licence: str) -> bool:
    """GPL and AGPL, but not LGPL, nor GPL with an exception for linked programs."""
    plain = re.sub(r"(?i)GPL\S* WITH GCC-exception\S*|GPL\S*-with-GCC-exception\S*", "", licence)
    names = r"(?i)(?<!L)\bA?GPL|(?<!Lesser )\bGeneral Public License|Affero"
    return bool(re.search(names, plain))


def test_default_dependencies_are_free_of_copyleft() -> None:
    closure = default_dependencies()
    assert {"torch", "timm", "numpy", "pydicom", "typer"} <= closure.keys()
    assert "pytest" not in closure
    assert {name: text for name, d in closure.items() if copyleft(text := stated_licence(d))} == {}


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0", True),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("LGPL-3.0-only", False),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("Apache-2.0", False),
    ],
)
def test_copyleft_is_recognised(licence: str, expected: bool) -> None:
    assert copyleft(licence) is expected
