"""The whole way of a technician, from the countdown to the scheduled jobs."""

from client_portal import at_portal
from client_site import Site


async def test_a_technician_enters_picks_names_and_leaves(site: Site) -> None:
    async with at_portal(site.url, site.site) as technician:
        await technician.sees("This computer is known as PC-0815")
        await technician.enters()
        await technician.sees("Windows 11 Staff")
        await technician.presses("down", "enter")
        await technician.sees("To be deployed")
        print(technician.text())
        await technician.presses("enter")
        await technician.sees("Scheduled for PC-0815", "1. Wipe disk", "2. Lay the image")
        print(technician.text())
        await technician.presses("enter")
        await technician.leaves_with(0)
    assert [wish.item_id for wish in site.sent] == ["job:2"]
