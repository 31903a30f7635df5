"""What all pages share: one canvas, keys from a table, redrawing, and a line to type into."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.screen import Screen

from opsboard.tui.canvas import Canvas
from opsboard.tui.keys import Key, hints
from opsboard.tui.lineedit import edited, pasted
from opsboard.tui.spans import Line
from opsboard.tui.view import Prompt, Size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsboard.tui.program import BoardApp
    from opsboard.tui.session import Session

COMMON: tuple[Key, ...] = (
    Key(keys=("colon", "ctrl+p"), action="command", text="type a command", group="Everywhere", hint="command"),
    Key(
        keys=("space", "p"),
        action="pause",
        text="pause the display",
        group="Everywhere",
        hint="pause",
    ),
    Key(keys=("ctrl+s",), action="dump", text="save the screen to a file", group="Everywhere"),
    Key(keys=("ctrl+l",), action="repaint", text="paint the screen anew", group="Everywhere"),
    Key(keys=("ctrl+z",), action="app.suspend_process", text="suspend to the shell", group="Everywhere"),
    Key(keys=("ctrl+c", "ctrl+q"), action="app.quit", text="quit", group="Everywhere"),
    Key(keys=("question_mark", "f1"), action="help", text="this help", group="Everywhere", hint="help"),
)


class Page(Screen[object]):
    """A full screen of lines. Subclasses give ``KEYS`` and ``draw``."""

    KEYS: ClassVar[tuple[Key, ...]] = ()
    TITLE_OF_HELP: ClassVar[str] = ""
    AUTO_FOCUS = None

    def __init__(self) -> None:
        """Nothing is being typed at first."""
        super().__init__()
        self._actions = {name: key.action for key in self.KEYS for name in key.keys}
        self.prompt: Prompt | None = None
        self.canvas: Canvas | None = None

    @property
    def board(self) -> BoardApp:
        """The application."""
        return cast("BoardApp", self.app)

    @property
    def session(self) -> Session:
        """What is known."""
        return self.board.session

    @property
    def on_top(self) -> bool:
        """True when this is the page that is seen (Textual's ``is_current`` holds for pages below it, too)."""
        return self.app.screen is self

    @property
    def room(self) -> Size:
        """The size of the terminal."""
        return Size(self.size.width, self.size.height)

    def compose(self) -> Iterator[Canvas]:
        """Yield the canvas."""
        self.canvas = Canvas(self.board.looks)
        yield self.canvas

    @abstractmethod
    def draw(self, size: Size) -> list[Line]:
        """Return the lines of the whole screen."""

    def footer_keys(self) -> list[tuple[str, str]]:
        """Return what the footer says about keys."""
        return hints(self.KEYS, self.session.glyphs, readonly=self.session.readonly)

    def redraw(self) -> None:
        """Draw anew; only cells that changed are sent."""
        if self.canvas is not None and self.on_top and self.size.width and self.size.height:
            self.canvas.show(self.draw(self.room))

    def on_mount(self) -> None:
        """Draw for the first time."""
        self.redraw()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._draw_all()

    def on_screen_resume(self) -> None:
        """Draw when another page uncovers this one."""
        self._draw_all()

    def _draw_all(self) -> None:
        """Draw every cell, whatever is on the terminal."""
        if self.canvas is not None:
            self.canvas.forget()
        self.redraw()

    # --- typing -----------------------------------------------------------------------------------------------------

    def ask(self, mark: str, text: str = "") -> None:
        """Open the line at the foot."""
        self.prompt = Prompt(mark=mark, text=text, choices=self.prompt_choices(mark, text))
        self.redraw()

    def prompt_choices(self, mark: str, text: str) -> tuple[str, ...]:
        """Return what could be typed next."""
        return self.board.command_choices(text) if mark == ":" else ()

    def prompt_changed(self, mark: str, text: str) -> None:
        """Act on each letter (live filters)."""

    def prompt_done(self, mark: str, text: str) -> None:
        """Act on Enter."""
        if mark == ":":
            self.board.obey(text)

    def prompt_left(self, mark: str) -> None:
        """Act on Esc."""

    async def on_key(self, event: events.Key) -> None:
        """Act on a key at once.

        Textual would carry each key to the application and back before it acts. Over a slow line several keys come
        together: the ``q`` of ``/qwen`` must find the filter open, and what follows a key that opens a page is for it.
        """
        event.stop()
        event.prevent_default()
        self.session.hush()
        if not self.on_top:
            self.board.page.post_message(events.Key(event.key, event.character))
        elif self.prompt is not None:
            self._type(self.prompt, event)
        else:
            await self.pressed(event)

    async def pressed(self, event: events.Key) -> None:
        """Do what the table of keys says."""
        action = self._actions.get(event.key)
        if action is not None:
            await self.run_action(action)

    def _type(self, prompt: Prompt, event: events.Key) -> None:
        """Take a key as a letter of the line at the foot."""
        mark, text = prompt.mark, prompt.text
        if event.key == "enter":
            self.prompt = None
            self.prompt_done(mark, text)
        elif event.key == "escape" or (event.key == "backspace" and not text):
            self.prompt = None
            self.prompt_left(mark)
        elif event.key == "tab":
            self._typed(mark, self.board.complete(text) if mark == ":" else text)
        else:
            after = edited(text, event.key, event.character)
            if after is not None:
                self._typed(mark, after)
        self.redraw()

    def on_paste(self, event: events.Paste) -> None:
        """Take the first line of a paste into what is typed."""
        if self.prompt is not None:
            event.stop()
            self._typed(self.prompt.mark, pasted(self.prompt.text, event.text))
            self.redraw()

    def _typed(self, mark: str, text: str) -> None:
        self.prompt = Prompt(mark=mark, text=text, choices=self.prompt_choices(mark, text))
        self.prompt_changed(mark, text)

    # --- the mouse, where it was asked for --------------------------------------------------------------------------

    def wheel(self, by: int) -> None:
        """Act on the wheel: ``by`` lines down, or up where negative."""

    def on_mouse_scroll_down(self) -> None:
        """Wheel down."""
        self.wheel(3)

    def on_mouse_scroll_up(self) -> None:
        """Wheel up."""
        self.wheel(-3)

    # --- what every page can do -------------------------------------------------------------------------------------

    def action_command(self) -> None:
        """Open the command line."""
        self.ask(":")

    def action_pause(self) -> None:
        """Hold the display, or let it go on."""
        self.session.pause()
        self.redraw()

    def action_dump(self) -> None:
        """Save the screen."""
        self.board.dump(self)

    def action_repaint(self) -> None:
        """Send the whole screen again."""
        self._draw_all()

    def action_help(self) -> None:
        """Show the keys of this page."""
        self.board.show_help(self)
