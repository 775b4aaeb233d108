"""Technicians who sign in, from the operator's first command to the jobs in the database."""

import gzip
import json
from pathlib import Path

import pytest

from bus.messages import Machine
from tests.e2e.e2e_site import OpenPortal, Site
from tests.samba import ALICE, BOB, DOMAIN, NETBIOS, DomainController
from tests.terminal import Terminal

ENTER = "\r"
DOWN = "\x1b[B"
ESCAPE = "\x1b"

PASSWORD = "Kaffeetasse-2206"
NEW_PASSWORD = "Gartenzaun-1907"
WRONG = "Ratespiel-0815"
SHARED = "Himbeertorte-4242"


def new_machine(number: int) -> Machine:
    return Machine(uuid=f"{number:08x}-91d2-4f6b-8a41-77f0c2b5e6d3", serial=f"SIGNIN{number:04}")


def operate(site: Site, *arguments: str, typed: str = "") -> str:
    """What a command says that goes well."""
    done = site.run(*arguments, typed=typed)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sign_in(pc: Terminal, name: str, password: str) -> None:
    pc.wait_for("User name")
    pc.type(name + ENTER + password + ENTER)


def test_a_technician_with_an_account_deploys_what_the_rules_allow(
    site: Site, boot: OpenPortal
) -> None:
    operate(site, "account", "add", "alice", "--group", "Techs", typed=PASSWORD + "\n")
    operate(site, "access", "allow", "group:techs", "job:2000190")
    operate(site, "options", "set", "protection", "server")
    pc = boot(new_machine(1), "-t", "0")
    pc.wait_for("not known to the deployment server")
    pc.type("i")
    sign_in(pc, "alice", WRONG)
    pc.wait_for("Tries left: 2")
    pc.type(PASSWORD + ENTER)
    screen = pc.wait_for("What is to be deployed")
    assert "Memory test" in screen
    assert "Exam" not in screen
    pc.type("memory" + ENTER)
    pc.wait_for("NOT KNOWN")
    pc.type(ENTER)
    pc.wait_for("Scheduled for the new computer SIGNIN0001")
    pc.type(ENTER)
    assert pc.status() == 0
    assert len(site.pending("SIGNIN0001")) == 1
    told = operate(site, "audit", "--json")
    events = [json.loads(line) for line in told.splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds == [
        "account_changed",
        "access_changed",
        "option_changed",
        "login_failed",
        "login_succeeded",
        "request_accepted",
        "computer_created",
        "jobs_scheduled",
    ]
    assert {event.get("technician") for event in events[3:]} == {"alice"}
    assert all("@" in event["operator"] for event in events[:3])


def test_an_unattended_client_signs_in_with_an_account(site: Site) -> None:
    operate(site, "account", "add", "alice", typed=PASSWORD + "\n")
    operate(site, "access", "allow", "user:alice", "job:2000190")
    operate(site, "options", "set", "protection", "server")
    machine = site.machine_file(new_machine(2))
    told = {"IMAGEINVOKER_USERNAME": "alice", "IMAGEINVOKER_PASSWORD": PASSWORD}
    done = site.run("client", "--machine", machine, "--item", "Memory test", more=told)
    assert done.returncode == 0, done.stderr
    done = site.run("client", "--machine", machine, "--item", "Exam Mode", more=told)
    assert done.returncode != 0
    assert len(site.pending("SIGNIN0002")) == 1


@pytest.mark.parametrize("security", ["LDAPS", "StartTLS"])
def test_a_technician_of_the_domain_deploys_what_a_nested_group_may(
    site: Site, boot: OpenPortal, controller: DomainController, security: str
) -> None:
    operate(site, "options", "set", "domain", DOMAIN)
    scheme = {"LDAPS": "ldaps", "StartTLS": "ldap"}[security]
    operate(site, "options", "set", "domain_controllers", f"{scheme}://{controller.address}")
    operate(site, "options", "set", "domain_ca", str(controller.ca_file))
    operate(site, "access", "allow", "group:Deploy Staff", "job:2000190")
    operate(site, "options", "set", "protection", "domain")
    pc = boot(new_machine(3), "-t", "0")
    pc.wait_for("not known to the deployment server")
    pc.type("i")
    sign_in(pc, f"{NETBIOS}\\{ALICE}", controller.password_of(ALICE))
    assert "Memory test" in pc.wait_for("What is to be deployed")
    pc.type(ENTER)
    pc.wait_for("NOT KNOWN")
    pc.type(ENTER)
    pc.wait_for("Scheduled for the new computer SIGNIN0003")
    pc.type(ENTER)
    assert pc.status() == 0
    report = operate(site, "doctor")
    assert "directory" in report
    explained = operate(site, "access", "explain", ALICE)
    assert "group:Deploy Staff" in explained
    # Bob is in the domain, and in none of the groups.
    told = {"IMAGEINVOKER_USERNAME": BOB, "IMAGEINVOKER_PASSWORD": controller.password_of(BOB)}
    machine = site.machine_file(new_machine(4))
    done = site.run("client", "--machine", machine, "--item", "job:2000190", more=told)
    assert done.returncode != 0
    assert site.pending("SIGNIN0004") == []


def test_a_directory_that_is_gone_is_a_sentence_at_the_portal(
    site: Site, boot: OpenPortal, controller: DomainController
) -> None:
    operate(site, "options", "set", "domain", DOMAIN)
    operate(site, "options", "set", "domain_controllers", "127.0.0.1:9")
    operate(site, "options", "set", "protection", "domain")
    pc = boot(new_machine(5), "-t", "0")
    pc.wait_for("not known to the deployment server")
    pc.type("i")
    sign_in(pc, ALICE, controller.password_of(ALICE))
    pc.wait_for("The directory cannot be asked at the moment")
    done = site.run("doctor", "--only", "options")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stdout


def _contents(folder: Path) -> bytes:
    parts = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            parts.append(gzip.decompress(data) if path.suffix == ".gz" else data)
    return b"\n".join(parts)


def test_no_password_of_a_whole_run_is_in_any_log_event_or_file(
    site: Site, boot: OpenPortal, controller: DomainController
) -> None:
    operate(site, "options", "set", "detailed_logging", "yes")
    said = operate(site, "account", "add", "alice", "--group", "Techs", typed=PASSWORD + "\n")
    said += operate(site, "access", "allow", "group:techs", "all")
    said += operate(site, "options", "set", "protection", "server")
    machine = site.machine_file(new_machine(6))

    def client(name: str, password: str) -> int:
        nonlocal said
        told = {"IMAGEINVOKER_USERNAME": name, "IMAGEINVOKER_PASSWORD": password}
        done = site.run("client", "--machine", machine, "--item", "Memory test", more=told)
        said += done.stdout + done.stderr
        return done.returncode

    assert client("alice", PASSWORD) == 0
    assert client("alice", WRONG) != 0
    assert client("nobody", WRONG) != 0
    pc = boot(new_machine(7), "-t", "0")
    pc.wait_for("not known")
    pc.type("i")
    sign_in(pc, "alice", WRONG)
    said += pc.wait_for("Tries left")
    pc.type(ESCAPE)
    said += operate(site, "account", "password", "alice", typed=NEW_PASSWORD + "\n")
    assert client("alice", NEW_PASSWORD) == 0
    said += operate(site, "options", "password", typed=SHARED + "\n")
    said += operate(site, "options", "set", "protection", "hash")
    assert client("", SHARED) == 0
    operate(site, "options", "set", "domain", DOMAIN)
    operate(site, "options", "set", "domain_controllers", controller.address)
    operate(site, "options", "set", "domain_ca", str(controller.ca_file))
    operate(site, "options", "set", "protection", "domain")
    operate(site, "access", "allow", f"user:{BOB}", "all")
    assert client(BOB, controller.password_of(BOB)) == 0
    assert client(ALICE, WRONG) != 0
    said += operate(site, "audit", "--json", "--limit", "1000")
    said += operate(site, "audit") + operate(site, "account", "list")
    said += operate(site, "options", "show", "--texts") + operate(site, "doctor")
    assert site.stop() == 0
    kept = _contents(site.folder.parent) + said.encode()
    assert b"login failed" in kept
    assert b"login_succeeded" in kept
    assert b"a question was answered" in kept
    assert b"$argon2id$" in kept
    secrets = (PASSWORD, NEW_PASSWORD, WRONG, SHARED, controller.password_of(BOB))
    assert [secret for secret in secrets if secret.encode() in kept] == []
    # Nor is a session: it begins with the same characters as every JSON web token.
    assert b"eyJhbGciOiJFZERTQSIs" not in kept
