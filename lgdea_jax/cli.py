"""What all commands share: exit statuses, one clear line for a user's error, config flags.

Exit statuses: 0 success; 1 internal error (with its traceback); 2 wrong use, or an error that concerns the whole run
(one line on stderr, no traceback); 3 finished, but rows were rejected; 130 stopped by Ctrl-C; 143 stopped by SIGTERM
after saving.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lgdea_jax.errors import UserError, environment_fault, nearest

LARGEST_SEED = 2**32 - 1
OK, FAULT, USAGE, PARTIAL, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> None:
    """Runs `main(arguments)` and exits with the statuses above. Never returns."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = main(arguments) or OK
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = USAGE
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = INTERRUPTED
    except Exception as error:
        fault = environment_fault(error)
        if not fault:
            raise
        print(f"error: {fault}", file=sys.stderr)
        status = USAGE
    sys.stdout.flush()
    sys.exit(status)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line with status 2, and that names the nearest flag for an unknown one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but an unknown flag comes before a missing one: the one may be the other, misspelt."""
        for word in sys.argv[1:] if args is None else args:
            if word == "--":
                break
            name = word.split("=")[0]
            if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                self.error(f"unrecognized arguments: {name}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises `UserError` instead of printing the usage."""
        if message.startswith("unrecognized arguments: "):
            name = message.removeprefix("unrecognized arguments: ").split()[0]
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            message = f"unknown argument {name.split('=')[0]!r}{nearest(name.split('=')[0], flags)}"
        raise UserError(f"{message} (see {self.prog} --help)")


def find_config(path: str) -> Path:
    """The config file at `path`, or the installed one of that name (`configs/x.py` works outside the checkout).

    Raises:
      UserError: there is none; the nearest is named.
    """
    name = path.split(":", 1)[0]
    if Path(name).is_file():
        return Path(name)
    parts = Path(name).parts
    if parts and parts[0] == "configs":
        roots = _config_roots()
        for root in roots:
            if (root / Path(*parts[1:])).is_file():
                return root / Path(*parts[1:])
        names = sorted(str(Path("configs") / p.relative_to(root)) for root in roots
                       for p in root.rglob("*.py") if p.name != "__init__.py")
        raise UserError(f"no config file {name!r}{nearest(name, names)}")
    raise UserError(f"no config file {name!r}")


def _config_roots() -> list[Path]:
    """Where our configs lie: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return [root for root in (here / "configs", here.parent / "configs") if root.is_dir()]


def read_config(path: str) -> Any:
    """The config that `FILE[:ARG]` defines: its `get_config(ARG)`. A file may import its neighbours relatively.

    Raises:
      UserError: no such file, or it has no `get_config`.
    """
    import importlib.util
    import types

    file = find_config(path).resolve()
    # A package around the file's folder, so that `from . import common` works from a checkout, from the installed
    # package and from a user's own folder alike; a copy of a config of ours finds ours there.
    package = "_lgdea_configs_" + hashlib.sha256(str(file.parent).encode()).hexdigest()[:12]
    if package not in sys.modules:
        sys.modules[package] = types.ModuleType(package)
        ours = [folder for root in _config_roots() for folder in (root, root / "data")]
        sys.modules[package].__path__ = [str(folder) for folder in (file.parent, *ours)]
    spec = importlib.util.spec_from_file_location(f"{package}.{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    arg = path.split(":", 1)[1] if ":" in path else None
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{file.name} defines no get_config(arg)")
        return module.get_config(arg)
    except (UserError, OSError):
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # An argument that the file does not know.
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f", line {frames[-1].lineno}" if frames else ""
        raise UserError(f"{file}{where}: {type(error).__name__}: {error}") from None


def load_config(argv: Sequence[str]) -> tuple[Any, list[str]]:
    """Reads `--config=FILE[:ARG]` and its `--config.key=value` overrides from `argv`.

    Args:
      argv: the command line without the program's name.

    Returns:
      (config, rest): an `ml_collections.ConfigDict`, locked, and the arguments that are not about the config.

    Raises:
      UserError: no `--config`, no such file, an unknown key (the nearest is named), or a value of the wrong type.
    """
    rest, overrides, path = [], [], None
    items = list(argv)
    while items:
        item = items.pop(0)
        if item == "--config" or item.startswith("--config="):
            path = item.split("=", 1)[1] if "=" in item else (items.pop(0) if items else None)
        elif item.startswith("--config."):
            key, _, value = item[len("--config."):].partition("=")
            if "=" not in item:
                if not items:
                    raise UserError(f"--config.{key} needs a value")
                value = items.pop(0)
            overrides.append((key, value))
        else:
            rest.append(item)
    if not path:
        raise UserError("--config=FILE is needed, for example --config=configs/phantom.py")
    config = read_config(path)
    set_overrides(config, overrides)
    check_seeds(config)
    config.lock()
    return config, rest


def set_overrides(config: Any, overrides: Sequence[tuple[str, str]]) -> None:
    """Sets (key, text) of a command line; with `data.pairs` other than 1, `config.limited` (KEY=VALUE) comes first.

    Raises:
      UserError: as `set_override`.
    """
    if limited := config.get("limited", ()):
        for key, value in overrides:
            if key == "data.pairs":
                set_override(config, key, value)
        for entry in limited if config.data.pairs != 1 else ():
            set_override(config, *entry.split("=", 1))
    for key, value in overrides:
        set_override(config, key, value)


def set_override(config: Any, key: str, text: str) -> None:
    """Sets the dotted `key` of a ConfigDict from command-line text, keeping the type that it has.

    Raises:
      UserError: the key is unknown, or the text does not fit the type.
    """
    from ml_collections import ConfigDict

    node, parts = config, key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, ConfigDict) or part not in node:
            known = [".".join([*parts[:depth], k]) for k in node] if isinstance(node, ConfigDict) else []
            raise UserError(f"unknown config key {key!r}{nearest(key, known)}")
        if depth < len(parts) - 1:
            node = node[part]
    old = node[parts[-1]]
    if isinstance(old, ConfigDict):
        raise UserError(f"config key {key!r} is a group: set one of {', '.join(f'{key}.{k}' for k in old)}")
    try:
        # A key of any type is a number or `auto`.
        node[parts[-1]] = (text if text == "auto" else int(text)) if node.get_type(parts[-1]) is object else _parse(
            text, old)
    except (ValueError, SyntaxError, TypeError):
        kind = "a number or auto" if node.get_type(parts[-1]) is object else f"of type {type(old).__name__}"
        raise UserError(f"config key {key!r}: {text!r} is not {kind}") from None


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def _parse(text: str, old: Any) -> Any:
    """`text` as the type of `old`; ValueError, SyntaxError or TypeError where it does not fit."""
    if isinstance(old, bool):
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    if isinstance(old, int):
        return int(text)
    if isinstance(old, float):
        return float(text)
    if isinstance(old, str):
        return text
    if isinstance(old, (tuple, list)):
        parts = [part for part in text.split(",") if part]
        if text[:1] in ("(", "["):
            parts = ast.literal_eval(text)
            if not isinstance(parts, (tuple, list)):
                raise ValueError(text)
        # The elements keep their type too; those of an empty default are text.
        return type(old)(_parse(str(part), old[0] if old else "") for part in parts)
    try:  # The default is None: a number where it reads as one, text otherwise.
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check_seeds(config: Any, prefix: str = "") -> None:
    """Refuses a `seed` that is no whole number from 0 to 2^32 - 1: what NumPy and JAX both take, and tell apart.

    Raises:
      UserError: names the key.
    """
    for key, value in config.items():
        if hasattr(value, "keys"):
            check_seeds(value, f"{prefix}{key}.")
        elif key == "seed" and not 0 <= value <= LARGEST_SEED:
            raise UserError(f"config key {prefix + key!r} is {value}: a seed is a number from 0 to {LARGEST_SEED}")


def seed(text: str) -> int:
    """The value of a flag for a seed; as the type of an argument of argparse."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {LARGEST_SEED}")
    return value


def spacing(text: str) -> tuple[float, float, float]:
    """The value of a flag for the lengths of a voxel in mm; as the type of an argument of argparse."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(0 < mm < math.inf for mm in values):
        raise argparse.ArgumentTypeError(f"{text!r} is not three lengths in mm such as 1.5,0.75,0.75")
    return values


def check_keys(config: Any, *, like: str) -> None:
    """Refuses a config file that sets keys which nobody reads, or lacks some.

    Args:
      config: what the file's `get_config` returned.
      like: name of our config that has every key, for example "common.py".

    Raises:
      UserError: the first key that is too much (the nearest is named) or missing.
    """
    file = next(root / like for root in _config_roots() if (root / like).is_file())

    def compare(ours: Any, every: Any, prefix: str) -> None:
        for key in ours:
            if key not in every:
                raise UserError(f"unknown config key {prefix + key!r}{nearest(key, every)}")
        for key in every:
            if key not in ours:
                raise UserError(f"the config has no key {prefix + key!r}: start from configs/{like}")
            if hasattr(every[key], "keys"):
                if not hasattr(ours[key], "keys"):
                    raise UserError(f"config key {prefix + key!r} is a group")
                compare(ours[key], every[key], f"{prefix}{key}.")

    compare(config, read_config(str(file)), "")
