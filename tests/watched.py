"""What a service shows to those who watch it, asked as Prometheus and others ask."""

import urllib.error
import urllib.request
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

Seen = dict[tuple[str, ...], float]
"""Values by name and labels, these in the order of their names; the site is left out."""

_LIMIT: Final = 10


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """The status and the text that a service answers with."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(asked, timeout=_LIMIT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def counted(text: str) -> Seen:
    """What stands in the text that Prometheus reads."""
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name != "site")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(port: int) -> Seen:
    """What a service counts."""
    status, text = ask(port, "/metrics")
    assert status == 200
    return counted(text)
