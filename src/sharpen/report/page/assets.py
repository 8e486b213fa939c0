"""The scripts and styles of the page, in order, and the policy under which a browser runs them."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"

SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    "dom.js",
    "data.js",
    "glance.js",
    "panels.js",
    "chart.js",
    "card.js",
    "curves_bar.js",
    "curves.js",
    "completions.js",
    "rollouts.js",
    "tokens.js",
    "prompts.js",
    "metrics.js",
    "page.js",
)
"""Plain scripts without imports, which a browser would refuse to load from a file."""
STYLES = ("vendor/uPlot.min.css", "page.css", "curves.css", "rollouts.css", "tokens.css")


@cache
def asset(name: str) -> str:
    """The text of one of `SCRIPTS` or `STYLES`."""
    if name not in SCRIPTS + STYLES:
        raise KeyError(name)
    return (STATIC / name).read_text(encoding="utf-8")


def policy(scripts: str, styles: str, connect: str = "'none'") -> str:
    """A content security policy under which nothing runs but ``scripts``, and no text becomes markup."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {scripts}",
            f"style-src {styles}",
            f"connect-src {connect}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def policy_of_file() -> str:
    """The policy of a page in one file: its own scripts and styles, by their hashes."""
    return policy(" ".join(map(_hash, SCRIPTS)), " ".join(map(_hash, STYLES)))


def _hash(name: str) -> str:
    digest = hashlib.sha256(asset(name).encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
