"""Templates → responses: escaping always on, and a policy that lets no script or style in but our own files."""

import json
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, JSONResponse

from prunefleet.infra.dashboard import text, views
from prunefleet.infra.hub.runs.holds import MEANING

HERE = Path(__file__).parent
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FILTERS = {
    "plain": text.plain,
    "score": text.score,
    "percent": text.percent,
    "points": text.points,
    "ratio": text.ratio,
    "ms": text.milliseconds,
    "seconds": text.seconds,
    "amount": text.amount,
    "iso": text.iso,
    "clock": text.clock,
    "shown": text.shown,
}


@cache
def environment() -> Environment:
    """The templates with our filters; an unknown name in one is an error, not an empty text."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(FILTERS, segment=segment)
    found.globals.update(
        interval=text.interval, kept_text=views.kept_text, compact=views.compact, asset=asset, nothing=text.NOTHING
    )
    found.globals.update(meaning=MEANING)
    return found


def prepare() -> None:
    """Compile all templates, so that the first page does not wait for it."""
    for name in environment().list_templates(extensions=["html"]):
        environment().get_template(name)


def segment(value: object) -> str:
    """A name as one segment of an address."""
    return quote(str(value), safe="")


@cache
def asset(name: str) -> str:
    """A static file's address, which changes with its content."""
    return f"/static/{name}?v={digest((HERE / 'static' / name).read_bytes())}"


def digest(content: bytes) -> str:
    """A short fingerprint."""
    return blake2b(content, digest_size=8).hexdigest()


def fragment(template: str, **values: Any) -> str:
    """A part of a page."""
    return environment().get_template(template).render(**values)


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page."""
    content = fragment(template, **values).encode(errors="replace")  # clients' texts may hold halves of surrogate pairs
    return HTMLResponse(content, status_code=status, headers=HEADERS)


class Ascii(JSONResponse):
    """JSON in ASCII, for the same reason."""

    def render(self, content: object) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def answer(content: object, status: int = 200) -> JSONResponse:
    """A page's JSON twin."""
    return Ascii(content, status_code=status, headers=HEADERS)
