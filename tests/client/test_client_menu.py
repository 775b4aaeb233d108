"""The menu: arrow keys, finding by typing, folders, and titles of every kind."""

import time

import pytest
from client_portal import at_portal
from client_site import Site, items, menu, until

from bus.messages import FolderEntry, ItemEntry
from client.portal.done import DoneScreen
from client.portal.menu import MenuScreen
from client.portal.name import NameScreen

FOLDERS = menu(
    FolderEntry(
        title="Staff",
        entries=(
            *items("Windows 11", "Ubuntu"),
            FolderEntry(title="Labs", entries=(ItemEntry(id="job:70", title="Lab image"),)),
        ),
    ),
    FolderEntry(title="Public", entries=(ItemEntry(id="job:80", title="Kiosk"),)),
    ItemEntry(id="job:99", title="Wipe the disk", hint="Deploy / Tools"),
)


async def test_keys_move_through_500_items_without_lag(site: Site) -> None:
    site.menu = menu(*items(*(f"Item {number:03}" for number in range(500))))
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("Item 000", "1 of 500")
        began = time.monotonic()
        await technician.presses("end")
        await technician.sees("Item 499", "500 of 500")
        await technician.presses("pageup")
        await technician.sees("483 of 500", "Item 482")
        await technician.presses("home", "down", "down", "up", "pagedown")
        await technician.sees("19 of 500")
        assert technician.selected() == ["> Item 018"]
        await technician.presses("up")
        assert time.monotonic() - began < 3


async def test_5000_items_are_searched_while_typing(site: Site) -> None:
    site.menu = menu(*items(*(f"Deployment {number:04} of many" for number in range(5000))))
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("1 of 5000")
        began = time.monotonic()
        await technician.types("MENT 4321 OF")
        await technician.sees("Deployment 4321 of many", "1 of 1")
        assert time.monotonic() - began < 3
        await technician.presses("enter")
        await technician.sees("To be deployed: Deployment 4321 of many")


async def test_what_is_typed_finds_and_backspace_deletes_it(site: Site) -> None:
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("Ubuntu 24.04")
        await technician.types("11 pu")
        await technician.sees("Type to find: 11 pu_", "Windows 11 Public", "1 of 1")
        await technician.types("x")
        await technician.sees("Nothing matches.")
        await technician.presses("enter", "down", "up", "end", "pagedown")
        await technician.presses("backspace", "backspace", "backspace")
        await technician.sees("Windows 11 Staff", "Windows 11 Public", "1 of 2")
        await technician.presses("escape")
        await technician.sees("Ubuntu 24.04", "1 of 3", "Type to find: _")
        await technician.presses("escape")
        await technician.leaves_with(0)


async def test_folders_are_entered_and_left(site: Site) -> None:
    site.menu = FOLDERS
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("[Staff]", "[Public]", "Wipe the disk", "Deploy / Tools")
        await technician.presses("enter")
        await technician.sees(".. back", "Windows 11", "[Labs]", "BACKSPACE back")
        assert technician.selected() == ["> Windows 11"]
        await technician.presses("end", "enter")
        await technician.sees("Lab image", "Staff / Labs")
        await technician.presses("backspace")
        await technician.sees("[Labs]")
        assert technician.selected() == ["> [Labs]"]
        await technician.presses("home", "enter")
        await technician.sees("[Public]")
        assert technician.selected() == ["> [Staff]"]
        await technician.presses("backspace")
        await technician.sees("[Public]")


async def test_finding_looks_into_every_folder_and_says_where(site: Site) -> None:
    site.menu = FOLDERS
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("[Public]")
        await technician.types("lab")
        await technician.sees("Lab image", "Staff / Labs", "1 of 1")
        await technician.presses("enter")
        await technician.sees("To be deployed: Lab image")


async def test_the_way_back_from_the_name_leads_to_the_same_place(site: Site) -> None:
    site.menu = FOLDERS
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("[Staff]")
        await technician.presses("enter", "down", "enter")
        await technician.sees("To be deployed: Ubuntu")
        await technician.presses("escape")
        await technician.sees("[Labs]")
        assert technician.selected() == ["> Ubuntu"]


async def test_an_empty_menu_and_a_stale_one_say_so(site: Site) -> None:
    site.menu = menu(stale=True)
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("There is nothing to deploy here for you.", "may be out of date")
        await technician.presses("enter", "down", "backspace", "escape")
        await technician.leaves_with(0)


async def test_a_title_wider_than_the_screen_ends_in_an_ellipsis(site: Site) -> None:
    site.menu = menu(ItemEntry(id="job:1", title="Long " * 40, hint="Here / There"))
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("...", "Here / There")
        assert all(len(line) <= 80 for line in technician.lines())


async def test_markup_and_control_characters_are_shown_not_obeyed(site: Site) -> None:
    titles = (
        "[bold]x[/]",
        "[link=file:///etc]y[/link]",
        "[/]",
        "a\x1b[2Jb\x07\u202ec",
        "[@click=x]",
    )
    site.menu = menu(*items(*titles), FolderEntry(title="[red]dir[/]", entries=items("[i]in[/i]")))
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("[bold]x[/]", "[link=file:///etc]y[/link]", "[/]", "a?[2Jb??c")
        await technician.sees("[[red]dir[/]]")
        assert "\x1b" not in technician.text()
        await technician.presses("enter")
        await technician.sees("To be deployed: [bold]x[/]")
        await technician.presses("enter")
        await until(lambda: bool(site.sent), lambda: "nothing was sent")
        await technician.sees("Scheduled for PC-0815")


@pytest.mark.parametrize("size", [(40, 12), (20, 6), (132, 50), (1, 1)])
async def test_the_whole_way_can_be_gone_on_any_screen(site: Site, size: tuple[int, int]) -> None:
    async with at_portal(site.url, site.site, size=size) as technician:
        await technician.presses("i")
        await technician.stands_at(MenuScreen)
        await technician.presses("enter")
        await technician.stands_at(NameScreen)
        await technician.presses("enter")
        await technician.stands_at(DoneScreen)
        await technician.presses("enter")
        await technician.leaves_with(0)


async def test_a_small_screen_shows_what_is_needed(site: Site) -> None:
    async with at_portal(site.url, site.site, size=(40, 12)) as technician:
        await technician.enters()
        await technician.sees("Windows 11 Staff", "Ubuntu 24.04", "UP/DOWN choose")
        await technician.presses("enter")
        await technician.sees("This computer is known as PC-0815", "ENTER schedules")
