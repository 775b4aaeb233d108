"""Work for threads that nobody waits for when the client leaves.

A name that no server of names answers for keeps its thread for half a minute and more, and Python
would wait for that at the end: the boot would wait with it.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Forsaken(ThreadPoolExecutor):
    """Gives each piece of work a thread of its own, which ends with the program at the latest."""

    def submit(
        self,
        fn: Callable[Arguments, Result],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Future[Result]:
        """Begins it at once."""
        future: Future[Result] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 (whoever waits for it gets it)
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name="lookup", daemon=True).start()
        return future


def leave_without_lookups() -> None:
    """Has the running loop end without waiting for names that are still being looked up."""
    asyncio.get_running_loop().set_default_executor(Forsaken())
