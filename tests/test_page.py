"""What a page makes of texts, hostile ones among them."""

import base64
from html.parser import HTMLParser

import pytest

from minitransformer.pages import page

PNG = base64.b64decode(  # one transparent pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Elements(HTMLParser):
    """The elements and the text that a browser would find."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.names, self.attributes, self.shown = [], [], []
        self.feed(source)

    def handle_starttag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes

    def handle_data(self, data):
        self.shown.append(data)


@pytest.mark.parametrize(
    "hostile",
    ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></table><h1>", '"><a href="x">', "&lt;b&gt;"],
)
def test_hostile_text_is_shown_and_makes_no_element(hostile):
    made = Elements(  # eleven places
        page.join([
            page.text(hostile), page.tag("p", hostile, title=hostile), page.table([hostile], [[hostile]], hostile),
            page.bars([(hostile, 1.0, hostile)], hostile), page.picture(PNG, hostile, hostile),
            page.cards([(hostile, hostile)]),
        ])
    )  # fmt: skip
    assert {"script", "a", "h1"}.isdisjoint(made.names)
    assert made.names.count("img") == 1
    assert not [name for name, _ in made.attributes if name.startswith("on") or name == "href"]
    assert made.shown.count(hostile) == 11
    assert ("title", hostile) in made.attributes


def test_the_title_of_a_page_is_escaped_too():
    assert "<title>&lt;/title&gt;&lt;script&gt;</title>" in page.page("</title><script>")


def test_characters_that_turn_or_hide_text_are_left_out_and_the_joiners_stay():
    assert page.escape("a\u202eb\u2066c\u200ed\x00e\x1bf\ufeffg\ud800h") == "abcdefgh"
    assert page.escape("می\u200cشود\nx") == "می\u200cشود\nx"


def test_the_direction_is_that_of_most_letters():
    assert page.direction("BERT یک مدل زبانی است") == "rtl"
    assert page.direction("the word کتاب means book") == "ltr"
    assert page.direction("۱۲۳") == "ltr"
    assert 'dir="rtl"' in page.text("تهران")


def test_a_page_loads_nothing_and_forbids_it():
    made = page.page("Title", page.picture(PNG, "a pixel"), page.table(["a"], [[1]]))
    elements = Elements(made)
    assert [
        value for name, value in elements.attributes if name in ("src", "href") and not value.startswith("data:")
    ] == []
    assert {"script", "link", "iframe"}.isdisjoint(elements.names)
    assert ("content", page.POLICY) in elements.attributes
    assert "http://" not in made
    assert "https://" not in made


def test_tables_set_numbers_apart_and_show_what_is_missing():
    made = page.table(["name", "value"], [["a", 1234], ["b", 1.5], ["c", None]])
    shown = [part for part in Elements(made).shown if part.strip()]
    assert shown == ["name", "value", "a", "1,234", "b", "1.50", "c", "–"]
    assert made.count('class="number"') == 4


def test_bars_have_the_share_of_the_highest():
    made = page.bars([("x", 50.0, "50"), ("y", 200.0, "200"), ("z", 0.0, "0")], "bars")
    assert [made.count(f"width: {width}%") for width in ("25.0", "100.0", "0.0")] == [1, 1, 1]
    assert "width: 50.0%" in page.bars([("x", 50.0, "50")], "bars", largest=100)
