"""Templates: no value breaks out of one, and none is written so that it could."""

import re
from importlib.resources import files

import pytest
from jinja2 import DictLoader, UndefinedError

from federation.web.document import document
from federation.web.markup import templates
from policies.models.card import Section


def test_a_template_escapes_every_value_and_knows_every_name() -> None:
    made = templates("silo_node.owner", {"twice": lambda text: text * 2})
    made.loader = DictLoader(
        {"escaped": '<p title="{{ a }}">{{ a }}{{ a|twice }}</p>', "strange": "{{ nobody }}", "deep": "{{ a.nobody }}"}
    )
    hostile = "<b>&\"'"
    escaped = "&lt;b&gt;&amp;&#34;&#39;"
    assert made.get_template("escaped").render(a=hostile) == f'<p title="{escaped}">{escaped}{escaped * 2}</p>'
    for name in ("strange", "deep"):
        with pytest.raises(UndefinedError):
            made.get_template(name).render(a=hostile)


def test_a_document_is_one_file_in_which_no_value_does_anything() -> None:
    hostile = "<script>alert(1)</script>"
    part = Section(hostile, ("", hostile), ((hostile, "b"),))
    told, empty = Section("Limits", (), ((hostile,),)), Section("Audit", ("figure",), ())
    text = document(hostile, hostile, [part, told, empty])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 7
    assert '<p class="quiet">none</p>' in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("package", ["silo_node.owner", "federation.web"])
def test_templates_keep_to_what_escaping_protects(package: str) -> None:
    """No value unescaped, in an attribute without quotes, in a script, a style, or at the begin of an address."""
    found = [one for one in (files(package) / "templates").iterdir() if one.name.endswith(".html")]
    assert found
    for one in found:
        text = one.read_text()
        assert not re.search(r"\|\s*safe|autoescape|Markup|<script|\son\w+\s*=|\sstyle\s*=", text), one.name
        assert not re.search(r"=\s*\{[{%]", re.sub(r"\{%.*?%\}", "", text, flags=re.DOTALL)), one.name
        assert not re.search(r'(href|src|formaction)="\{', text), one.name
        assert re.findall(r'action="(.*?)"', text) in ([], ["{{ base }}decide"])
