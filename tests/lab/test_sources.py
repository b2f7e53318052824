"""Who says it: the places that say, deny or qualify the source's statements."""

import tomllib
from importlib.resources import files

import pytest

from bncourse.claims import statements

SOURCES = tomllib.loads(files("bncourse").joinpath("sources.toml").read_text(encoding="utf-8"))
FACTS = {"who": str, "title": str, "where": str, "url": str, "words": str, "stance": str}


def test_every_statement_has_its_places_in_order():
    assert list(SOURCES) == list(statements())


def test_what_the_literature_says_somebody_says():
    literature = [id for id, one in statements().items() if one.speaker == "The literature says"]
    assert literature and all(isinstance(SOURCES[id], list) for id in literature)


@pytest.mark.parametrize("id", SOURCES)
def test_a_place_can_be_found_and_its_words_are_few(id):
    places = SOURCES[id]
    if isinstance(places, dict):
        assert places.keys() == {"looked"} and places["looked"]
        return
    assert 1 <= len(places) <= 3
    for place in places:
        assert {name: type(place[name]) for name in FACTS} == FACTS and all(place.values())
        assert place.keys() <= FACTS.keys() | {"year"} and 1990 < place.get("year", 2026) <= 2026
        assert place["url"].startswith("https://")
        assert 1 <= len(place["words"].split()) <= 25
        assert place["stance"] in ("says", "denies", "qualifies")
