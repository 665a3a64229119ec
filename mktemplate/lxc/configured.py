"""The half of python3-lxc's Container that is its configuration; nothing of it touches what runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from mktemplate.failures import failures_in
from mktemplate.lxc.network import ContainerNetworkList
from mktemplate.lxc.settings import Settings
from mktemplate.places import resolve
from runtime import bundle
from runtime.container import Container as Running
from runtime.errors import StateError

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
C = TypeVar("C", bound="Configured")
_log = logging.getLogger("mktemplate.lxc")


def refused(
    answer: S,
) -> Callable[[Callable[Concatenate[C, P], R]], Callable[Concatenate[C, P], R | S]]:
    """Have a method answer `answer` where it fails, as python3-lxc does; why goes to the log mktemplate.lxc."""

    def decorate(method: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R | S]:
        @wraps(method)
        def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R | S:
            try:
                return method(self, *args, **kwargs)
            except Exception as failure:
                found = failures_in(failure)
                if not found and not isinstance(failure, ValueError):
                    raise  # a bug
                _log.error("%s: %s: %s", self.name, method.__name__, (*found, failure)[0])
                return answer

        return call

    return decorate


class Configured:
    """A container's name, its place and its configuration in memory."""

    def __init__(self, name: str, config_path: str | None = None) -> None:
        """Name a container, which need not exist; one that does is read."""
        self._path = resolve(config_path or "")
        try:
            self._found = Running(self._path, name)
        except StateError as error:
            raise RuntimeError(str(error)) from None
        self._settings = Settings()
        self.network = ContainerNetworkList(self)
        if self.defined:
            self.load_config()

    @property
    def name(self) -> str:
        """Its name."""
        return self._found.name

    @property
    def config_file_name(self) -> str:
        """Where its configuration is kept."""
        return str(self._found.directory / "config")

    @property
    def defined(self) -> bool:
        """Whether its configuration is kept there."""
        return os.path.isfile(self.config_file_name)

    @property
    def controllable(self) -> bool:
        """Whether we may do anything with it."""
        directory = self._found.directory
        return not directory.exists() or os.access(directory, os.R_OK | os.W_OK | os.X_OK)

    def get_config_path(self) -> str:
        """Return the directory that it lies in, with others."""
        return str(self._path)

    def set_config_path(self, path: str) -> bool:
        """Look for it somewhere else from now on, and read it there."""
        self._path = Path(os.path.abspath(path))
        self._found = Running(self._path, self.name)
        return self.load_config() if self.defined else True

    def get_keys(self, key: str | None = None) -> list[str]:
        """Return the keys there are, or what may follow `key`. KeyError where nothing may."""
        return self._settings.keys(key)

    def get_config_item(self, key: str) -> str | list[str]:
        """Return what `key` says, a list where it may say several things. KeyError where there is no such key."""
        return self._settings.get(key)

    @refused(None)
    def get_running_config_item(self, key: str) -> str | None:
        """Return what `key` says for the container that runs; None where it does not run."""
        if self._found.pid is None:
            return None
        try:
            value = Settings(_read(self.config_file_name)).get(key)
        except KeyError:
            return None
        return value if isinstance(value, str) else "\n".join(value)

    def set_config_item(self, key: str, value: object) -> bool:
        """Let `key` say `value`, a string or a list of them; False, and all is as before, where it cannot."""
        kept = self._settings.text()
        wanted = (
            list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        )
        if self._settings.clear(key) and all(self._settings.take(key, str(one)) for one in wanted):
            return True
        self._settings = Settings(kept)
        self._settings.get(key)  # KeyError where there is no such key
        return False

    def append_config_item(self, key: str, value: str) -> bool:
        """Let `key` say `value`, too; another than a list then says only that."""
        return self._settings.take(key, value)

    def clear_config_item(self, key: str) -> bool:
        """Let `key` say nothing; False where there is no such key."""
        return self._settings.clear(key)

    def clear_config(self) -> None:
        """Let no key say anything; what is kept stays."""
        self._settings = Settings()

    @refused(False)
    def load_config(self, path: str | None = None) -> bool:
        """Read what is kept, or the file `path` on top of what is in memory."""
        if path is None:
            self._settings = Settings(_read(self.config_file_name))
        else:
            self._settings.load(_read(path))
        return True

    @refused(False)
    def save_config(self, path: str | None = None) -> bool:
        """Keep the configuration, or write it to the file `path`."""
        if path is None:
            self._path.mkdir(parents=True, exist_ok=True)
            self._found.directory.mkdir(mode=0o700, exist_ok=True)
        data = self._settings.text().encode("utf-8", "surrogateescape")
        bundle.replace_file(Path(path or self.config_file_name), data, 0o644)
        return True

    def _is_saved(self) -> bool:
        return Settings(_read(self.config_file_name)).pairs() == self._settings.pairs()


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
