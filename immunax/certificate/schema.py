"""The published JSON Schema of certificates."""

import json
from functools import cache
from importlib import resources
from typing import Any

import jsonschema

SCHEMA = "certificate-v1.schema.json"


@cache
def schema() -> dict[str, Any]:
    """The schema (draft 2020-12), as published beside this module."""
    return json.loads(resources.files("immunax.certificate").joinpath(SCHEMA).read_text(encoding="utf-8"))


def fault(stated: Any) -> str | None:
    """The first way in which a statement departs from the schema, with its place; None where it does not."""
    validator = jsonschema.Draft202012Validator(schema())
    error = min(validator.iter_errors(stated), key=lambda error: list(map(str, error.absolute_path)), default=None)
    return None if error is None else f"{error.json_path}: {error.message[:200]}"
