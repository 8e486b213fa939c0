"""The report as a file: nothing of a network, no script but its own, and no text of a model that is markup."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from hostile_texts import HOSTILE_CHARACTERS
from page_runs import Page, row, run_on_disk
from sharpen.errors import DataError, DiskError
from sharpen.report.page.html import write_report

METRICS = [{"step": 1, "loss": 0.5}]

MARKUP = {
    "the end of a script": "</script><script>alert(1)</script>",
    "a comment": "<!-- <script>",
    "an image": "<img src=x onerror=alert(1)>",
    "the end of a title": "</title></style></textarea><svg onload=alert(1)>",
    "an address": '"><a href="javascript:alert(1)">x</a>',
    "a template": "{{ 7 * 7 }}{% raw %}{{ policy }}",
    "references": "&lt;b&gt;&amp;&#60;",
    "line separators": "a\u2028b\u2029c",
    "a long line": "<" * 1_000_000,
}
# Parquet and YAML hold text in UTF-8, which has no surrogates: they cannot come from a run's files.
HOSTILE = MARKUP | {
    name: text for name, text in HOSTILE_CHARACTERS.items() if text.encode("utf-8", "ignore").decode() == text
}


def written(tmp_path: Path, text: str) -> Page:
    short = text[:200]
    own = {"reward/exact": 1.0, f"reward/{short}": 0.5}
    run = run_on_disk(
        tmp_path / "run",
        [{"step": 1, "loss": 0.5, f"of/{short}": 1.0}],
        {1: [row(text, text, 1.0, error=text, source=short, **own)]},
        recipe={"model": {"path": short}, "data": {"task": short}, "method": {"name": f"m:{short}"}},
    )
    return Page(write_report([run], tmp_path / "report.html", say=print, title=short))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_stay_texts(name: str, tmp_path: Path) -> None:
    text = HOSTILE[name]
    page = written(tmp_path, text)
    usual = written(tmp_path / "usual", "harmless")
    # Every tag is one that a harmless run has too.
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in usual.tags]
    [group] = page.chunks()["training/1"]["groups"]
    [shown] = group["rows"]
    assert group["prompt"] == text[:50_000]
    assert shown["completion"] == text[:50_000]
    assert shown["error"] == text[:2_000]
    data = page.data
    assert data["title"] == (text[:200] or "run")
    assert data["runs"][0]["glance"]["model"]["path"] == text[:200]
    assert f"of/{text[:200]}" in data["runs"][0]["series"]["values"]


def test_lone_surrogates_in_metrics_survive(tmp_path: Path) -> None:
    run = run_on_disk(tmp_path / "run", [{"step": 1, "loss": 0.5, "\ud800": 1.0}])
    page = Page(write_report([run], tmp_path / "report.html", say=print, title="\ud800"))
    assert "\ud800" in page.data["runs"][0]["series"]["values"]
    assert page.data["title"] == "\ud800"


def test_nothing_is_loaded_and_nothing_else_runs(tmp_path: Path) -> None:
    page = written(tmp_path, "harmless")
    [policy] = [
        attributes["content"] or ""
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    directives = dict(directive.split(" ", 1) for directive in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'none'"
    assert directives["base-uri"] == directives["form-action"] == "'none'"
    assert directives["require-trusted-types-for"] == "'script'"
    assert directives["trusted-types"] == "'none'"
    assert "unsafe" not in policy
    # The policy stands before whatever it is to hold for.
    assert page.text.index("Content-Security-Policy") < page.text.index("<style")
    for kind, source in (("script", "script-src"), ("style", "style-src")):
        texts = [text for tag, attributes, text in page.contents if tag == kind and "type" not in attributes]
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]
        assert hashes
        assert set(hashes) <= set(directives[source].split())
    for _, attributes in page.tags:
        assert not attributes.keys() & {"src", "href", "srcset", "action", "style"}
        assert not any(name.startswith("on") for name in attributes)
    styles = " ".join(text for tag, _, text in page.contents if tag == "style")
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)", styles)


def test_the_same_run_is_the_same_file(tmp_path: Path) -> None:
    run = run_on_disk(tmp_path / "run", METRICS, {1: [row()]})
    first = write_report([run], tmp_path / "a.html", say=print).read_bytes()
    assert write_report([run], tmp_path / "b.html", say=print).read_bytes() == first


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_on_disk(tmp_path / "run", METRICS)
    file = write_report([run], tmp_path / "report.html", say=print)
    before = file.read_bytes()
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(DiskError, match=r"report\.html: the report cannot be written: No space left"):
        write_report([run], file, say=print)
    assert file.read_bytes() == before


def full_disk(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


def test_no_metrics_yet(tmp_path: Path) -> None:
    run = run_on_disk(tmp_path / "run")
    with pytest.raises(DataError, match="there are no metrics yet"):
        write_report([run], tmp_path / "report.html", say=print)
    assert not (tmp_path / "report.html").exists()
