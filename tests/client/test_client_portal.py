"""From the password to the scheduled jobs, through every refusal and every broken line."""

import asyncio

import pytest
from client_portal import Technician, at_portal
from client_site import MACHINE, Site, until, welcome
from textual import events
from textual.worker import WorkerFailed

from bus.messages import ComputerRef, Details, NameRules, Outcome, ProblemBody
from bus.problems import Problem
from client.portal.app import Portal
from client.portal.login import Credentials
from client.settings import Settings
from tests.buses import BusServer


async def picks_the_first(technician: Technician) -> None:
    await technician.enters()
    await technician.sees("Windows 11 Staff")
    await technician.presses("enter")
    await technician.sees("To be deployed: Windows 11 Staff")


async def test_a_technician_enters_picks_names_and_leaves(site: Site) -> None:
    site.replaced = 3
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("Windows 11 Staff")
        await technician.presses("down", "enter")
        await technician.sees("To be deployed: Windows 11 Public", "known as PC-0815")
        await technician.presses("enter")
        await technician.sees("Scheduled for PC-0815", "- Wipe disk", "- Lay the image")
        await technician.sees("replaced: 3")
        await technician.presses("enter")
        await technician.leaves_with(0)
    (wish,) = site.sent
    assert (wish.item_id, wish.computer_name, wish.token) == ("job:2", None, None)


async def test_the_last_screen_leaves_by_itself(site: Site) -> None:
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses("enter")
        await technician.sees("goes on starting in 5 s")
        await technician.sees("goes on starting in 4 s")
        await technician.leaves_with(0)


async def test_an_unknown_computer_is_offered_a_name_in_plain_sight(site: Site) -> None:
    site.welcome = welcome(computer=None)
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.sees("NOT KNOWN: a new computer will be created", "7XK2P12")
        await technician.presses("enter")
        await technician.sees("Scheduled for the new computer 7XK2P12")
    assert [wish.computer_name for wish in site.sent] == ["7XK2P12"]


async def test_a_name_is_checked_while_it_is_typed(site: Site) -> None:
    site.welcome = welcome(name_rules=NameRules(max_length=8, pattern="^[a-z0-9]+$", hint="a to z"))
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.sees("a to z")
        await technician.presses(*["backspace"] * 7)
        await technician.sees("A name is needed.")
        await technician.types("0815-")
        await technician.sees("This is no computer name. a to z.")
        await technician.presses("enter")
        await technician.presses("backspace")
        await technician.sees_no("This is no computer name.")
        await technician.types("abcdef")
        await technician.sees("At most 8 characters.")
        await technician.presses("enter", "backspace", "backspace", "enter")
        await technician.sees("Scheduled for 0815abcd (was PC-0815)")
    assert [wish.computer_name for wish in site.sent] == ["0815abcd"]


async def test_a_name_can_be_changed_in_the_middle(site: Site) -> None:
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses("home", "delete", "right", "backspace", "x", "left", "left", "7")
        await technician.presses("end", "left", "0")
        await technician.sees("7x-08105")
        await technician.presses("enter")
        await technician.sees("Scheduled for 7x-08105")


async def test_where_names_are_fixed_nothing_is_asked(site: Site) -> None:
    site.welcome = welcome(may_rename=False)
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.sees("known as PC-0815", "Known computers keep their names here")
        await technician.types("other")
        await technician.presses("enter")
        await technician.sees("Scheduled for PC-0815")
    assert [wish.computer_name for wish in site.sent] == [None]


async def test_a_taken_name_comes_back_to_its_screen(site: Site) -> None:
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses(*["backspace"] * 7)
        await technician.types("TAKEN")
        await technician.presses("enter")
        await technician.sees("Another computer has this name.", "TAKEN")
        await technician.types("2")
        await technician.presses("enter")
        await technician.sees("Scheduled for TAKEN2")
    first, second = site.sent
    assert first.request_id != second.request_id


async def test_a_password_is_asked_and_its_tries_are_told(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("Sign in to deploy this computer", "Password")
        assert "User name" not in technician.text()
        await technician.types("wrong")
        await technician.sees("*****")
        assert "wrong" not in technician.text()
        await technician.presses("enter")
        await technician.sees("Tries left: 2")
        await technician.types("let me in")
        await technician.presses("enter")
        await technician.sees("Windows 11 Staff")
    assert [login.username for login in site.logins] == [None, None]
    assert site.shown[-1].token == "token-2"


async def test_an_account_is_asked_for_where_there_are_accounts(site: Site) -> None:
    site.welcome = welcome(protection="domain")
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("User name")
        # In one go: no key of the password may show up in the user name.
        await technician.presses(*"ann", "enter", *"wrong", "enter")
        await technician.sees("Tries left: 2", "ann")
        await technician.types("let me in")
        await technician.presses("enter")
        await technician.sees("Windows 11 Staff")
    assert [login.username for login in site.logins] == ["ann", "ann"]


async def test_too_many_tries_mean_no_entry(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        for left in ("2", "1"):
            await technician.sees("Sign in to deploy this computer")
            await technician.types("no")
            await technician.presses("enter")
            await technician.sees(f"Tries left: {left}")
        await technician.types("no")
        await technician.presses("enter")
        await technician.sees("No entry", "Try again in 5 min")
        await technician.presses("enter")
        await technician.leaves_with(3)


async def test_a_sign_in_that_nobody_answers_is_not_repeated_unasked(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    site.problems["login"] = [Problem("directory_unavailable")]
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("Sign in")
        await technician.types("let me in")
        await technician.presses("enter")
        await technician.sees("The directory cannot be asked at the moment.")
        assert site.logins == []
        await technician.presses("escape")
        await technician.leaves_with(0)


async def test_a_session_that_ends_in_the_middle_loses_nothing(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("Sign in")
        await technician.types("let me in")
        await technician.presses("enter")
        await technician.sees("Ubuntu 24.04")
        await technician.presses("end", "enter")
        await technician.sees("To be deployed: Ubuntu 24.04")
        await technician.types("X")
        site.tokens.clear()
        await technician.presses("enter")
        await technician.sees("Your session has ended. Please sign in again.")
        await technician.types("let me in")
        await technician.presses("enter")
        await technician.sees("Scheduled for PC-0815X")
    first, second = site.sent
    assert first.request_id == second.request_id
    assert (second.item_id, second.computer_name) == ("job:3", "PC-0815X")


async def test_a_session_that_ends_before_the_menu_leads_back_to_the_password(site: Site) -> None:
    site.welcome = welcome(protection="hash")
    site.problems["show"] = [Problem("session_expired")]
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("Sign in")
        await technician.types("let me in")
        await technician.presses("enter")
        await technician.sees("Your session has ended.")
        await technician.types("let me in")
        await technician.presses("enter")
        await technician.sees("Windows 11 Staff")


async def test_a_request_is_watched_until_it_is_carried_out(site: Site) -> None:
    site.polls = 2
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses("enter")
        await technician.sees("Scheduling Windows 11 Staff", "The request is safely kept")
        await technician.sees("Scheduled for PC-0815")
    assert len(site.sent) == 1


async def test_a_busy_site_is_asked_again_with_the_same_request(site: Site) -> None:
    site.problems["schedule"] = [
        Problem("overloaded", details=Details(retry_after=0.1)),
        Problem("deployment_server_unavailable"),
        Problem("internal_error"),
    ]
    site.problems["status"] = [Problem("unknown_request"), Problem("overloaded")]
    site.polls = 1
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses("enter")
        await technician.sees("The deployment server does not answer at the moment.")
        await technician.sees("Scheduled for PC-0815")
    assert len({wish.request_id for wish in site.sent}) == 1
    assert len(site.outcomes) == 1


async def test_a_line_lost_while_scheduling_neither_loses_nor_doubles_the_request(
    own_server: BusServer,
) -> None:
    own_server.start()
    async with Site(own_server.url, "main").serving() as site:
        async with at_portal(own_server.url, "main") as technician:
            await picks_the_first(technician)
            # The request arrives and is carried out, but the answer never does.
            site.silent.add("schedule")
            await technician.presses("enter")
            await until(lambda: bool(site.sent), lambda: "nothing was sent")
            own_server.stop()
            await technician.sees("The line to the deployment service is down.")
            site.silent.clear()
            own_server.start()
            await technician.sees("Scheduled for PC-0815", seconds=20)
            await technician.sees_no("The line to the deployment service is down.")
        assert len({wish.request_id for wish in site.sent}) == 1
        assert len(site.outcomes) == 1


async def test_a_lost_line_is_said_on_any_screen_until_it_is_back(own_server: BusServer) -> None:
    own_server.start()
    async with (
        Site(own_server.url, "main").serving(),
        at_portal(own_server.url, "main") as technician,
    ):
        await picks_the_first(technician)
        own_server.stop()
        await technician.sees("To be deployed", "The line to the deployment service is down.")
        await technician.presses("escape")
        await technician.sees("Asking for the menu", "The line to the deployment service")
        own_server.start()
        await technician.sees("Windows 11 Staff", seconds=20)
        await technician.sees_no("The line to the deployment service is down.")


async def test_leaving_while_a_request_is_under_way_needs_a_second_thought(site: Site) -> None:
    site.problems["schedule"] = [Problem("deployment_server_unavailable")] * 99
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses("enter")
        await technician.sees("Scheduling Windows 11 Staff")
        await technician.presses("escape")
        await technician.sees("Leave now?", "ENTER goes on waiting")
        await technician.presses("enter")
        await technician.sees_no("Leave now?")
        await technician.presses("escape", "escape")
        await technician.leaves_with(4)


async def test_leaving_an_accepted_request_is_no_failure(site: Site) -> None:
    site.polls = 99
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses("enter")
        await technician.sees("The request is safely kept")
        await technician.presses("escape", "escape")
        await technician.leaves_with(0)


async def test_a_refusal_shows_its_request_and_leads_back_to_the_menu(site: Site) -> None:
    computers = (ComputerRef(id=1, name="PC-1"), ComputerRef(id=2, name="PC-2"))
    site.problems["schedule"] = [Problem("ambiguous_machine", details=Details(computers=computers))]
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses("enter")
        await technician.sees("This could not be scheduled", "Several computers match")
        await technician.sees("Computers that match: PC-1, PC-2", "Request ")
        await technician.presses("enter")
        await technician.sees("Ubuntu 24.04")
        await technician.presses("enter")
        await technician.sees("To be deployed")
        await technician.presses("enter")
        await technician.sees("Scheduled for PC-0815")


async def test_a_request_rejected_later_is_a_refusal_too(site: Site) -> None:
    class Rejecting(Site):
        def _outcome(self, request_id: str) -> Outcome:
            if self.polls > 0:
                return super()._outcome(request_id)
            problem = ProblemBody(code="forbidden", message="No [b]right[/b] to do this.")
            return Outcome(request_id=request_id, state="rejected", problem=problem)

    async with Rejecting(site.url, "rejecting").serving() as rejecting:
        rejecting.polls = 1
        async with at_portal(site.url, "rejecting") as technician:
            await picks_the_first(technician)
            await technician.presses("enter")
            await technician.sees("This could not be scheduled", "No [b]right[/b] to do this.")
            await technician.sees(f"Request {rejecting.sent[0].request_id}")
            await technician.presses("escape")
            await technician.leaves_with(3)


async def test_an_abandoned_portal_goes_back_to_the_boot(site: Site) -> None:
    site.welcome = welcome(idle_timeout=4)
    async with at_portal(site.url, site.site) as technician:
        loop = asyncio.get_running_loop()
        await technician.enters()
        await technician.sees("Windows 11 Staff")
        await asyncio.sleep(1)  # a key in time counts from anew
        await technician.presses("down")
        pressed = loop.time()
        await technician.leaves_with(0)
        assert loop.time() - pressed > 3.5


async def test_idleness_ends_no_request_that_is_under_way(site: Site) -> None:
    site.welcome = welcome(idle_timeout=2)
    site.polls = 8  # two and a half seconds at least
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        await technician.presses("enter")
        await technician.sees("Scheduled for PC-0815", seconds=30)


async def test_the_operators_texts_are_shown_and_broken_ones_are_not(site: Site) -> None:
    site.welcome = welcome(text={"menu": "[b]Was soll drauf?[/b]", "menu_find": "{broken}"})
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("[b]Was soll drauf?[/b]", "Type to find: _")


async def test_a_crash_prints_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Portal):
        async def _walk(self) -> None:
            password = "hush-hush"
            raise RuntimeError(f"broken with {len(password)} characters")

    server = "nats://127.0.0.1:1"
    portal = Broken(Settings(server=server), server, MACHINE)
    with pytest.raises(WorkerFailed, match="broken with 9 characters"):
        async with portal.run_test():
            await until(lambda: portal.return_code == 1, lambda: "it did not break")
    printed = capsys.readouterr().err
    assert "broken with 9 characters" in printed
    assert "hush" not in printed


async def test_arrow_keys_and_tab_change_between_user_name_and_password(site: Site) -> None:
    site.welcome = welcome(protection="server")
    async with at_portal(site.url, site.site) as technician:
        await technician.enters()
        await technician.sees("User name")
        await technician.presses("tab", *"let me in", "up", *"bob", "down", "left", "enter")
        await technician.sees("Windows 11 Staff")
    assert [(login.username, login.password) for login in site.logins] == [("bob", "let me in")]


async def test_a_pasted_name_loses_what_steers_a_terminal(site: Site) -> None:
    async with at_portal(site.url, site.site) as technician:
        await picks_the_first(technician)
        technician.portal.post_message(events.Paste("\x1b[31mX\r\n"))
        await technician.sees("PC-0815?[31mX", "This is no computer name.")


async def test_a_password_is_never_in_the_representation_of_what_was_typed() -> None:
    assert "hush" not in repr(Credentials("hush", "ann"))
