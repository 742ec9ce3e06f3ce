from types import SimpleNamespace

from hiersplat.plugin.note import ViewerNote


class Gui:
    """Stands for viser's, which keeps what it was told to show."""

    def add_markdown(self, content: str, visible: bool) -> SimpleNamespace:
        return SimpleNamespace(content=content, visible=visible)


def test_text_is_shown_under_its_title_and_follows_its_value():
    note = ViewerNote("About", "nothing yet")
    note.value = "41 part nodes"
    note.install(SimpleNamespace(gui=Gui()))
    assert note.gui_handle.content == "**About:** 41 part nodes"
    note.value = "12 whole nodes"
    assert note.value == "12 whole nodes"
    assert note.gui_handle.content == "**About:** 12 whole nodes"


def test_signs_of_a_text_are_no_markup():
    note = ViewerNote("About", "a_b *c* <d>")
    note.install(SimpleNamespace(gui=Gui()))
    assert note.gui_handle.content == r"**About:** a\_b \*c\* \<d\>"
