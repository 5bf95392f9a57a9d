import sys
from importlib.metadata import EntryPoint

import pytest

from bench import registry


def plugins(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    found = [EntryPoint(name, value, registry.GROUP) for name, value in points]
    monkeypatch.setattr(registry, "installed", lambda group: found)


def test_unknown_names_get_the_nearest_and_the_list() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'diffusion'\? known: aligned-diffusion, block-diffusion, diffusion, mar"):
        registry.load("difusion")


def test_a_duplicate_shows_both_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins(monkeypatch, ("mar", "other.package:MAR"))
    with pytest.raises(ValueError, match=r"paradigms.mar:MAR and other.package:MAR"):
        registry.targets()


def test_a_third_party_paradigm_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins(monkeypatch, ("again", "paradigms.next_token:NextToken"))
    assert registry.load("again").__name__ == "NextToken"
    assert registry.load("diffusion").__name__ == "Diffusion"


def test_a_plugin_that_raises_on_import_disturbs_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no GPU driver')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins(monkeypatch, ("broken", "broken_plugin:X"), ("text", "json:dumps"))
    assert registry.load("diffusion")
    with pytest.raises(ValueError, match=r"'broken' .* cannot be imported: RuntimeError: no GPU driver"):
        registry.load("broken")
    with pytest.raises(ValueError, match="not a subclass"):
        registry.load("text")
    assert "broken_plugin" not in sys.modules
