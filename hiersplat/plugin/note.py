"""Text in the viewer that is only read.

nerfstudio's text box shows about twenty characters of one line; a note takes the lines it needs.
"""

from typing import Any

from nerfstudio.viewer.viewer_elements import ViewerElement
from viser import ViserServer


class ViewerNote(ViewerElement[str]):
    """A line of text under a title, wrapped where the panel ends."""

    gui_handle: Any

    def __init__(self, name: str, value: str) -> None:
        super().__init__(name)
        self._value = value

    @property
    def value(self) -> str:
        """The text."""
        return self._value

    @value.setter
    def value(self, value: str) -> None:
        self._value = value
        if self.gui_handle is not None:
            self.gui_handle.content = self._markdown()

    def install(self, viser_server: ViserServer) -> None:
        """Show the text; nothing can be typed, so nothing calls back."""
        self._create_gui_handle(viser_server)

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        self.gui_handle = viser_server.gui.add_markdown(self._markdown(), visible=self.visible)

    def _markdown(self) -> str:
        # What stands in a text is never meant as markup.
        plain = "".join(f"\\{sign}" if sign in "\\`*_{}[]<>#+-!|" else sign for sign in self._value)
        return f"**{self.name}:** {plain}"
