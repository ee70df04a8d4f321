"""The service's API as a page of its own: openapi.json in words, nothing from the network, no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

TEMPLATES = Path(__file__).parent / "templates"


def docs_page(schema: dict[str, Any], *, address: str) -> str:
    """Return the page of an OpenAPI schema; ``address`` of the service ends with a slash."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template("docs.html").render(schema=schema, address=address)
