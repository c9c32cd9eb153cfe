"""The engine ``openai``: any server that speaks OpenAI's chat interface.

``vllm serve``, llama.cpp, Ollama, SGLang, OpenAI itself. Requests are sent side by side; one that
fails for a passing reason is sent again after a while.
"""

from __future__ import annotations

import os
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ...config import GenerationConfig
from ...errors import UserError, missing_extra
from ...progress import step
from ..requests import ModelIdentity, Request
from .base import Answer, ClosingEngine, now, schema_of
from .local import cut_at_stop
from .replies import (
    OddBody,
    guarded_client,
    only_thought,
    pause_of,
    printable,
    reason_of,
    text_of,
    tokens_of,
)

_FIRST_PAUSE = 0.5  # seconds; doubled at every further try
_LONGEST_PAUSE = 60.0
_LONGEST_ASKED = 600.0  # seconds that a server may ask for; a longer wait is the user's to decide
_GROUP_SECONDS = 1.0
_GRACE = 1.0  # seconds for the client to notice by itself that time is over
_LOOK = 0.1  # seconds between looks for an interrupt
_DISPENSABLE = ("max_tokens", "temperature", "top_p", "seed", "stop")
_UNSUPPORTED = re.compile(
    r"unsupported|not support|does not support|unknown|unrecognized|unexpected|not permitted|"
    r"not allowed|extra inputs|deprecated|only the default"
)


class _Passing(Exception):
    """A failure that another try may mend; ``pause`` is what the server asked for, in seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _Unwelcome(Exception):
    """The server refuses a setting that it can do without."""

    def __init__(self, setting: str) -> None:
        super().__init__(setting)
        self.setting = setting


def unwelcome_setting(status: int, error: Exception, refused: frozenset[str]) -> str:
    """Return the setting that a refusal is about, if the request can be sent without it.

    Reasoning models take no temperature and name the limit of tokens otherwise. A value that is
    merely too large is the user's to mend.
    """
    body = getattr(error, "body", None)
    named = body.get("param") if isinstance(body, dict) else None
    words = f"{error} {body}"[:4000].lower()
    if status not in (400, 422) or not _UNSUPPORTED.search(words):
        return ""
    if isinstance(named, str) and named in _DISPENSABLE:
        return named if named not in refused else ""
    return next((s for s in _DISPENSABLE if s in words and s not in refused), "")


class ServerEngine(ClosingEngine):
    """Many requests in flight, each tried again on 408, 409, 429, 5xx, time-outs, cut lines and
    answers that are no JSON."""

    name = "openai"

    def __init__(
        self,
        config: GenerationConfig,
        model: ModelIdentity,
        *,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise missing_extra("openai", "openai", "The engine openai") from error
        self._openai = openai
        self._config, self._server, self._model = config, config.server, model.source
        self._stop = threading.Event()
        self._troubled = threading.Event()  # said once, so that waiting is no riddle
        self._sleep = sleep or self._stop.wait
        self.base_url = (
            self._server.base_url
            or os.environ.get("OPENAI_BASE_URL", "")
            or "https://api.openai.com/v1"
        )
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(
                f"{self.base_url!r} is no address of a server.", "Write it as http://HOST:PORT/v1."
            )
        key = os.environ.get("OPENAI_API_KEY", "")
        if not key and "api.openai.com" in self.base_url:
            raise UserError("No key for api.openai.com.", "Set OPENAI_API_KEY.")
        self.version = openai.__version__
        self._client = openai.OpenAI(
            base_url=self.base_url,
            api_key=key or "none",  # local servers want none, the client wants some
            timeout=self._server.timeout,
            max_retries=0,
            http_client=guarded_client(openai, self._server.timeout),
        )
        self._lock = threading.Lock()
        self._refuses: set[str] = set()  # settings that this model is not sent again

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        """Answer side by side: see :class:`~.base.Engine`."""
        waiting = iter(requests)
        flying: set[Future[Answer]] = set()
        group: list[Answer] = []
        failure: BaseException | None = None
        handed = time.monotonic()
        pool = ThreadPoolExecutor(self._server.concurrency)
        try:
            while True:
                while failure is None and len(flying) < 2 * self._server.concurrency:
                    request = next(waiting, None)
                    if request is None:
                        break
                    flying.add(pool.submit(self._ask, request))
                if not flying:
                    break
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    if future.cancelled():
                        continue
                    if error := future.exception():
                        failure = failure or error
                        self._stop.set()  # wakes those that wait for another try
                        flying = {left for left in flying if not left.cancel()}
                    else:
                        group.append(future.result())
                if group and time.monotonic() - handed > _GROUP_SECONDS:
                    yield group
                    group, handed = [], time.monotonic()
            if group:
                yield group
            if failure is not None:
                raise failure
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
            self._stop.clear()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, request: Request) -> Answer:
        for attempt in range(self._server.retries + 1):
            try:
                return self._once(request)
            except _Passing as error:
                if attempt == self._server.retries or self._stop.is_set():
                    raise UserError(
                        f"The server at {self.base_url} failed {attempt + 1} times in a row for "
                        f"one request: {error}.",
                        "Is it running? Finished answers are kept; run the same command again.",
                    ) from error
                if not self._troubled.is_set():
                    self._troubled.set()
                    step(f"The server at {self.base_url}: {error}; trying again …")
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
                self._sleep(max(error.pause, pause * random.uniform(0.5, 1.0)))
        raise AssertionError("unreachable")

    def _once(self, request: Request) -> Answer:
        """Ask once more for as long as the server refuses settings that it can do without."""
        for _ in range(len(_DISPENSABLE) + 1):
            with self._lock:
                before = frozenset(self._refuses)
            try:
                return self._within_time(request, before)
            except _Unwelcome as error:
                self._leave_out(error.setting)
        raise _Passing("it refuses one setting after another")

    def _leave_out(self, setting: str) -> None:
        with self._lock:
            if setting in self._refuses:
                return
            self._refuses.add(setting)
        if setting == "max_tokens":
            step("The server wants max_completion_tokens for max_tokens.")
        else:
            step(f"The server refuses {setting}: its own default is used.")

    def _within_time(self, request: Request, refused: frozenset[str]) -> Answer:
        """Send one request in a thread of its own, which is left behind when time is over.

        A server can drip for ever, in its headers too, and no time-out of a socket ends that. The
        thread ends with the process, so an interrupt waits for nobody.
        """
        box: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()

        def send() -> None:
            try:
                box.put(self._send(request, refused))
            except BaseException as error:
                box.put(error)

        threading.Thread(target=send, daemon=True).start()
        end = time.monotonic() + self._server.timeout + _GRACE
        while time.monotonic() < end:
            try:
                found = box.get(timeout=_LOOK)
            except queue.Empty:
                if self._stop.is_set():
                    raise _Passing("it was interrupted") from None
                continue
            if isinstance(found, BaseException):
                raise found
            return found
        raise _Passing(f"no answer within {self._server.timeout:g} seconds")

    def _send(self, request: Request, refused: frozenset[str]) -> Answer:
        openai = self._openai
        try:
            arguments = self._arguments(request, refused)
            reply: Any = self._client.chat.completions.create(**arguments)
            choice = reply.choices[0]
            reason, tokens = reason_of(choice), tokens_of(reply)
            text = text_of(choice.message)
            if text is None and not only_thought(choice.message, reason):
                raise _Passing("an answer without text")
        except openai.APITimeoutError as error:
            raise _Passing(f"no answer within {self._server.timeout:g} seconds") from error
        except openai.APIConnectionError as error:
            cause = printable(str(error.__cause__ or error))
            raise _Passing(f"the connection failed ({cause})") from error
        except openai.APIStatusError as error:
            status = error.status_code
            if status in (408, 409, 429) or status >= 500:
                pause = pause_of(error.response.headers.get("retry-after", ""))
                if pause > _LONGEST_ASKED:
                    raise self._closed_for(pause, status) from error
                raise _Passing(f"status {status}", pause) from error
            if setting := unwelcome_setting(status, error, refused):
                raise _Unwelcome(setting) from error
            raise self._refused(status, error) from error
        except OddBody as error:
            raise _Passing(str(error)) from error
        except (openai.APIError, ValueError, AttributeError, TypeError, LookupError,
                RecursionError) as error:  # fmt: skip
            raise _Passing("an answer that is not valid JSON of a chat completion") from error
        # no text: a thought used up all tokens, or a filter took the words. It stays a fragment.
        reason = reason if text is not None else "length"
        text = cut_at_stop(text or "", request.sampling["stop"])  # a server may refuse to do so
        return Answer(request.key, text, reason, tokens, self.name, self.version, now())

    def _closed_for(self, pause: float, status: int) -> UserError:
        hours = pause / 3600
        wait = f"{pause / 60:.0f} minutes" if hours < 2 else f"{hours:,.0f} hours"
        return UserError(
            f"The server at {self.base_url} asks to be left alone for {wait} (status {status}).",
            "Finished answers are kept; run the same command again then, or use another server.",
        )

    def _arguments(self, request: Request, refused: frozenset[str]) -> dict[str, Any]:
        sampling = request.sampling
        arguments: dict[str, Any] = {
            "model": self._model,
            "messages": request.messages,
            "temperature": sampling["temperature"],
            "top_p": sampling["top_p"],
            "max_tokens": sampling["max_tokens"],
        }
        if sampling["stop"]:
            arguments["stop"] = list(sampling["stop"])
        if self._server.send_seed:
            arguments["seed"] = request.seed
        if sampling.get("structured_output"):
            name, form = schema_of(request)
            schema = {"name": name, "schema": form, "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        if self._config.chat_template_kwargs and "api.openai.com" not in self.base_url:
            arguments["extra_body"] = {"chat_template_kwargs": self._config.chat_template_kwargs}
        if "max_tokens" in refused:
            arguments["max_completion_tokens"] = arguments["max_tokens"]
        return {name: value for name, value in arguments.items() if name not in refused}

    def _refused(self, status: int, error: Exception) -> UserError:
        reason = printable(str(error)) or f"status {status}"
        if 300 <= status < 400:
            place = printable(getattr(error, "response").headers.get("location", ""))  # noqa: B009
            reason = f"it sends requests on to {place!r}, and prompts go nowhere unasked"
            return UserError(
                f"The server at {self.base_url} refused a request: {reason}.",
                "If you trust that address, give it as --base-url.",
            )
        hints = {
            401: "Check OPENAI_API_KEY.",
            403: "Check OPENAI_API_KEY.",
            404: f"Does it serve the model {self._model!r}, and does --base-url end in /v1?",
        }
        hint = hints.get(status, "The request would fail again; check the sampling settings.")
        return UserError(f"The server at {self.base_url} refused a request: {reason}.", hint)
