"""The coordinator: finds studies, takes their leases, keeps those it holds, and lets go of them in good order."""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
from collections.abc import Mapping

from coordinator.batch import SCHEMA
from coordinator.heartbeat import Heartbeat
from coordinator.keeper import FencedError, Keeper, PoisonedError
from coordinator.server_check import VOLATILE, problems
from coordinator.store import AWAY, REFUSED, LaterSchemaError, Store, WrongTypeError
from coordinator.suggest import Suggester
from coordinator.timing import Timing
from hpopt.core.address import in_words, without_credentials
from hpopt.core.codec import OLDEST, VERSION
from hpopt.core.keys import StudyKeys

CHECK_EVERY = 60.0
"""Seconds between two looks at the server's settings."""
AFTER_FAULT = 30.0
"""Seconds before a study whose keys somebody else has written is tried again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds before a study that was dropped from memory is taken again: the first time, and while it cannot be."""

log = logging.getLogger("hpopt.coordinator")


class UnfitServerError(Exception):
    """The server cannot be used; the text says why and what to change."""


class Service:
    """One coordinator process. Any number of them may be alive at once."""

    def __init__(
        self,
        url: str,
        timing: Timing,
        environment: Mapping[str, str] = os.environ,
        *,
        alone: bool = False,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        """Nothing is connected before `run`. `alone`: the server never has another coordinator."""
        self.owner = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)} protocol {OLDEST}-{VERSION + 1}"
        self.store = Store(url, self.owner)
        self._shown = without_credentials(url)
        self.timing = timing
        self.alone = alone
        self.heartbeat = heartbeat
        self.keepers: dict[str, tuple[Keeper, asyncio.Task[None]]] = {}
        self.draining = asyncio.Event()
        self._allow_volatile = environment.get(VOLATILE) == "1"
        self._not_before: dict[str, float] = {}
        self._pauses: dict[str, float] = {}
        self._warned: set[str] = set()
        self._suggester = Suggester()

    async def run(self) -> None:
        """Serve until `drain` is called. Raises UnfitServerError when the server cannot be used."""
        await self._wait_for_server()
        if not self.draining.is_set():
            log.info("coordinator ready", extra={"owner": self.owner})
        loops = (self._find_hints, self._renew_forever, self._check_forever)
        try:
            async with asyncio.TaskGroup() as group:  # should one of them fail, so does the coordinator, visibly
                background = [group.create_task(each()) for each in loops]
                await self._find_forever()
                for task in background:
                    task.cancel()
        finally:
            await self._let_go()
            self._suggester.close()
            await self.store.close()
            log.info("coordinator drained", extra={"owner": self.owner})

    def drain(self) -> None:
        """Finish the batches in hand, give the leases back, and end."""
        self.draining.set()

    # --- the server

    async def _wait_for_server(self) -> None:
        pause = 0.1
        while not self.draining.is_set():
            try:
                await self.check_server()
                await self._announce()
            except REFUSED as error:
                raise UnfitServerError(
                    f"{self._shown} refuses us ({in_words(error)}): check the credentials in --url or HPOPT_URL, or "
                    "the file that HPOPT_PASSWORD_FILE names"
                ) from None
            except AWAY as error:
                extra = {"server": self._shown, "detail": in_words(error), "retry_in": round(pause, 1)}
                log.warning("server not reachable", extra=extra)
                await self._sleep(pause)
                pause = min(5.0, 2 * pause)
            else:
                return

    async def check_server(self) -> None:
        """Raises UnfitServerError when the server would lose or refuse what studies need."""
        fatal, volatile = problems(await self.store.info())
        if fatal or (volatile and not self._allow_volatile):
            remedy = "" if fatal else f" (or set {VOLATILE}=1 to accept the loss)"
            raise UnfitServerError("; ".join([*fatal, *volatile]) + remedy)
        for text in set(volatile) - self._warned:
            self._warned.add(text)
            log.warning("server is volatile", extra={"detail": text})

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                await self.check_server()
            except UnfitServerError as error:
                log.error("server has become unfit", extra={"detail": str(error)})  # noqa: TRY400 - no traceback needed
            except AWAY as error:
                log.warning("server not reachable", extra={"detail": in_words(error)})

    # --- finding studies

    async def _find_forever(self) -> None:
        while not self.draining.is_set():
            try:
                for path in sorted(await self.store.studies()):
                    self._take(path)
            except AWAY as error:
                log.warning("server not reachable", extra={"detail": in_words(error)})
            await self._sleep(self.timing.lease / 3)

    async def _find_hints(self) -> None:
        while True:
            try:
                async for _ in self.store.created():
                    for path in sorted(await self.store.studies() - self.keepers.keys()):
                        self._take(path)
            except (WrongTypeError, *AWAY):
                await asyncio.sleep(random.uniform(0.1, 1.0))

    def _take(self, path: str) -> None:
        """Try to become the owner of a study, in a task of its own."""
        now = asyncio.get_running_loop().time()
        if path in self.keepers or self.draining.is_set() or now < self._not_before.get(path, 0.0):
            return
        try:
            keys = StudyKeys.parse(path)
        except ValueError as error:
            self._fault(path, f"not a study: {error}")
            return
        keeper = Keeper(self.store, keys, self._suggester, self.timing)
        self.keepers[path] = (keeper, asyncio.create_task(self._keep(path, keeper)))

    async def _keep(self, path: str, keeper: Keeper) -> None:
        """One study from taking its lease to losing it. Whatever goes wrong, the others go on."""
        try:
            meta = await self.store.acquire(keeper.keys, self._lease, SCHEMA, alone=self.alone)
            self._pauses.pop(path, None)
            if meta is not None:
                log.info("study taken", extra={"study": path, "starts": meta.get(b"starts", b"").decode()})
                await keeper.run(meta)
                await self.store.renew(keeper.keys, 0)
        except WrongTypeError as error:
            self._fault(path, f"key {error} is not of hpopt's type: another program writes under this prefix")
        except LaterSchemaError as error:
            self._fault(path, f"a later release has written it ({error}, {SCHEMA} is known here): upgrade this one")
        except (FencedError, PoisonedError, *AWAY) as error:
            self._again_soon(path, f"{type(error).__name__}: {error}")
        except Exception:
            log.exception("study faulted", extra={"study": path})
            self._fault(path, "an unexpected error, see above")
        finally:
            self.keepers.pop(path, None)

    def _again_soon(self, path: str, detail: str) -> None:
        level = logging.DEBUG if path in self._pauses else logging.WARNING  # once per outage, not once per attempt
        log.log(level, "study dropped from memory", extra={"study": path, "detail": detail})
        pause = self._pauses.get(path, FIRST_PAUSE)
        self._pauses[path] = min(2 * pause, LONGEST_PAUSE)
        asyncio.get_running_loop().call_later(pause * random.uniform(0.5, 1.0), self._take, path)

    def _fault(self, path: str, detail: str) -> None:
        self._not_before[path] = asyncio.get_running_loop().time() + AFTER_FAULT
        log.error("study set aside", extra={"study": path, "detail": detail, "retry_in": AFTER_FAULT})

    # --- leases

    @property
    def _lease(self) -> int:
        return int(self.timing.lease * 1000)

    async def _announce(self) -> None:
        await self.store.announce(int(self.timing.presence * 1000))
        if self.heartbeat is not None:
            self.heartbeat.beat(self.timing.presence)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self.timing.lease / 3)
            try:
                await self._announce()
                for path, (keeper, task) in list(self.keepers.items()):
                    if keeper.seq and not await self.store.renew(keeper.keys, self._lease):  # without seq, not ours yet
                        log.warning("lease lost", extra={"study": path})
                        task.cancel()
            except AWAY as error:
                log.warning("leases not renewed", extra={"detail": in_words(error)})

    async def _let_go(self) -> None:
        if self.heartbeat is not None:
            self.heartbeat.end()
        tasks = [task for _, task in self.keepers.values()]
        for keeper, _ in list(self.keepers.values()):
            keeper.draining.set()
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)
        with contextlib.suppress(*AWAY):
            await self.store.withdraw()
            await self.store.hint()  # whoever else is there need not wait for its next look

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.draining.wait()
