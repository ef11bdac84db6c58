"""Nothing in the package makes code of data: no pickle, no eval, no loader of YAML that builds objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import machinery_compat

PACKAGE = Path(machinery_compat.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "jsonpickle",
    "code",
    "codeop",
    "runpy",
}
CALLS = {"eval", "exec", "compile", "__import__"}
#: Of yaml: those that only build plain values, and what is read from nodes without building anything.
YAML = {"SafeLoader", "MarkedYAMLError", "YAMLError", "MappingNode", "ScalarNode", "SequenceNode", "Node"}


def evaluations(tree: ast.AST) -> Iterator[str]:
    modules = {one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            yield from (f"line {line}: import {one.name}" for one in node.names if one.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {*MODULES, "yaml"}:
            yield f"line {line}: from {node.module} import …"
        elif isinstance(node, ast.Name) and node.id in CALLS:
            yield f"line {line}: {node.id}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "yaml" and "yaml" in modules and node.attr not in YAML:
                yield f"line {line}: yaml.{node.attr}"
            elif node.value.id == "os" and node.attr in ("system", "popen"):
                yield f"line {line}: os.{node.attr}"
            elif node.value.id == "builtins" and node.attr in CALLS:
                yield f"line {line}: builtins.{node.attr}"
        elif isinstance(node, ast.Constant) and node.value in ("pickle", "application/x-python-serialize"):
            yield f"line {line}: the serializer {node.value!r}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_code_of_data(path: Path) -> None:
    assert not list(evaluations(ast.parse(path.read_bytes())))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "x = exec",
        "import yaml; yaml.load(x)",
        "import yaml; yaml.unsafe_load(x)",
        "from yaml import load",
        "os.system('x')",
        "loads(x, 'pickle')",
    ],
)
def test_the_check_finds_it(text: str) -> None:
    assert list(evaluations(ast.parse(text)))


def test_all_modules_are_looked_at() -> None:
    assert len(FILES) > 50
