"""What every page must be: well-formed HTML in one file that loads nothing from elsewhere."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parents[2] / "lgdea_jax/pages/templates"


class Nesting(HTMLParser):
    """Notes what is wrong with a page: elements left open or closed in another order, double ids, images unnamed."""

    VOID = ("meta", "img", "br", "link", "input", "hr", "rect", "line", "polyline", "circle")

    def __init__(self):
        super().__init__()
        self.open, self.faults, self.ids, self.targets = [], [], [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if len(given) != len(attributes):
            self.faults.append(f"an attribute twice in {tag}")
        if tag == "img" and not given.get("alt"):
            self.faults.append("an image without alt")
        if tag in ("p", "ul", "table", "div", "figure", "section") and "p" in self.open:
            self.faults.append(f"{tag} inside p")
        self.ids += [given["id"]] if "id" in given else []
        self.targets += [given["href"]] if "href" in given else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"{tag} closed out of order")


def check_html(text, script=""):
    """Checks a page; `script` is the file of the only one that it may hold, besides data."""
    if script:
        code = (TEMPLATES / script).read_text(encoding="utf-8").removesuffix("\n")
        assert "innerHTML" not in code and "localStorage" not in code and "</" not in code
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in text
        assert re.findall(r"<script([^>]*)>", text) == [' type="application/json" id="data"', ""]
        text, n = re.subn(r"<script[^>]*>.*?</script>", "", text, flags=re.DOTALL)
        assert n == 2
    parser = Nesting()
    parser.feed(text)
    parser.close()
    assert parser.faults == [] and parser.open == [] and len(set(parser.ids)) == len(parser.ids)
    assert all(target.startswith("#") and target[1:] in parser.ids for target in parser.targets)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)|<script|@import|url\(|https?:""", text)
    assert "default-src 'none'" in text and 'name="viewport"' in text
