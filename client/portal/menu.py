"""The menu: pick by arrow keys, or by typing a part of the title."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from textual import events
from textual.widget import Widget

from bus.messages import Entry, FolderEntry, ItemEntry, Menu
from client.items import SEPARATOR, every_item, matching
from client.portal.frame import Bar, Line, PortalScreen, gap, words_of
from client.portal.rows import Row, Rows
from client.words import Words, plain


@dataclass(frozen=True, slots=True)
class Place:
    """Where a technician stands in the menu, to be found again after a look elsewhere."""

    folders: tuple[str, ...] = ()
    search: str = ""
    item_id: str = ""


@dataclass(frozen=True, slots=True)
class Picked:
    """What was picked, and where."""

    item: ItemEntry
    place: Place


class MenuScreen(PortalScreen[Picked | None]):
    """Answers what was picked, or None when the technician leaves."""

    def __init__(self, title: tuple[str, str], words: Words, menu: Menu, place: Place) -> None:
        super().__init__(title, "")
        self._words = words
        self._menu = menu
        self._items = list(every_item(menu.entries))
        self._folded = [found.item.title.casefold() for found in self._items]
        self._path = self._known_path(place.folders)
        self._search = place.search
        self._heading = words_of(words("menu"), classes="strong")
        self._where = Line("")
        self._where.add_class("hint")
        self._find = Bar("")
        self._rows = Rows()
        self._empty = words_of("", classes="warn")
        self._shown: list[Entry | None] = []
        self._first = place.item_id

    def body(self) -> Iterator[Widget]:
        """The widgets between title and help."""
        yield self._heading
        yield self._where
        if self._menu.stale:
            yield words_of(self._words("menu_stale"), classes="warn")
        yield self._find
        yield gap()
        yield self._empty
        yield self._rows

    def on_mount(self) -> None:
        """Told by Textual."""
        self._show(lambda entry: isinstance(entry, ItemEntry) and entry.id == self._first)

    def on_key(self, event: events.Key) -> None:
        """Told by Textual."""
        match event.key:
            case "enter":
                self._pick()
            case "escape" if self._search:
                self._search_for("")
            case "escape":
                self.finish(None)
            case "backspace" if self._search:
                self._search_for(self._search[:-1])
            case "backspace":
                self._back()
            case key if self._rows.press(key):
                self._say_place()
            case _ if event.character and event.character.isprintable():
                self._search_for(self._search + event.character)

    def on_paste(self, event: events.Paste) -> None:
        """Told by Textual."""
        self._search_for(self._search + plain(event.text.strip()))

    def _pick(self) -> None:
        if not self._shown:
            return
        entry = self._shown[self._rows.index]
        if entry is None:
            self._back()
        elif isinstance(entry, FolderEntry):
            self._path = (*self._path, entry)
            self._show(lambda _entry: False)
        else:
            folders = tuple(folder.title for folder in self._path)
            self.finish(Picked(entry, Place(folders, self._search, entry.id)))

    def _back(self) -> None:
        if self._path:
            *path, left = self._path
            self._path = tuple(path)
            self._show(lambda entry: entry is left)

    def _search_for(self, text: str) -> None:
        self._search = text
        self._show(lambda _entry: False)

    def _show(self, is_selected: Callable[[Entry | None], bool]) -> None:
        rows: list[Row]
        if self._search:
            found = matching(self._items, self._folded, self._search.strip())
            self._shown = [each.item for each in found]
            rows = [
                (plain(each.item.title), plain(each.item.hint or SEPARATOR.join(each.folders)))
                for each in found
            ]
        else:
            entries = self._path[-1].entries if self._path else self._menu.entries
            back: list[Entry | None] = [None] if self._path else []
            self._shown = [*back, *entries]
            rows = [self._row(entry) for entry in self._shown]
        usual = 1 if len(self._shown) > 1 and self._shown[0] is None else 0
        chosen = (number for number, entry in enumerate(self._shown) if is_selected(entry))
        self._rows.fill(rows, next(chosen, usual))
        self._say()

    def _row(self, entry: Entry | None) -> Row:
        if entry is None:
            return self._words("menu_back"), ""
        if isinstance(entry, FolderEntry):
            return f"[{plain(entry.title)}]", ""
        return plain(entry.title), plain(entry.hint)

    def _say(self) -> None:
        where = plain(SEPARATOR.join(folder.title for folder in self._path))
        self._where.say(where)
        self._where.display = bool(where) and not self._search
        if self._search:
            self.help(self._words("menu_help_search"))
        else:
            self.help(self._words("menu_help_folder" if self._path else "menu_help"))
        nothing = "menu_nothing_found" if self._search else "menu_empty"
        self._empty.update("" if self._shown else self._words(nothing))
        self._empty.display = not self._shown
        self._say_place()

    def _say_place(self) -> None:
        place = ""
        if self._shown:
            place = self._words("menu_place", number=self._rows.index + 1, count=len(self._shown))
        self._find.say(f"{self._words('menu_find')}: {plain(self._search)}_", place)

    def _known_path(self, titles: tuple[str, ...]) -> tuple[FolderEntry, ...]:
        path: list[FolderEntry] = []
        entries = self._menu.entries
        for title in titles:
            folders = (e for e in entries if isinstance(e, FolderEntry) and e.title == title)
            folder = next(folders, None)
            if folder is None:
                break
            path.append(folder)
            entries = folder.entries
        return tuple(path)
