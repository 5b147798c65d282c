"""OpenAI's API description, where MOBIUS_TEST_DATA has it, as validators of what a server answers."""

import functools
import os
import pathlib

import pytest

yaml = pytest.importorskip("yaml")
jsonschema = pytest.importorskip("jsonschema")

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("MOBIUS_TEST_DATA", ROOT.parent / "shared" / "data"))
FILE = DATA / "api" / "openapi.yaml"

needs_description = pytest.mark.skipif(not FILE.exists(), reason=f"no {FILE}; set MOBIUS_TEST_DATA")


@functools.cache
def components():
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with open(FILE, "rb") as file:
        return _as_json_schema(yaml.load(file, Loader=loader)["components"])


def _as_json_schema(node):
    """OpenAPI 3.0's `nullable`, which the description still uses, in JSON Schema's words."""
    if isinstance(node, list):
        return [_as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _as_json_schema(value) for key, value in node.items()}
    if out.get("nullable") is True:
        del out["nullable"]
        return {"anyOf": [out, {"type": "null"}]}
    return out


@functools.cache
def _validator(name):
    schema = {"$ref": f"#/components/schemas/{name}", "components": components()}
    return jsonschema.Draft202012Validator(schema)


def check(name, value):
    """Fails where the value is none of that schema's."""
    errors = [f"{error.json_path}: {error.message}" for error in _validator(name).iter_errors(value)]
    assert not errors, f"{name}: {errors}\n{value}"


def fields(name):
    """The properties of an object's schema, those of what it is composed of included."""
    schema = components()["schemas"][name]
    found = set(schema.get("properties", {}))
    for part in schema.get("allOf", []):
        if "$ref" in part:
            found |= fields(part["$ref"].rsplit("/", 1)[1])
        found |= set(part.get("properties", {}))
    return found
