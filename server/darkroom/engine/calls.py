"""A call of a network, taken apart into rows, so that several can be made as one."""

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from darkroom.engine.adapters import LoraSet

# Positions of tokens: one table for all rows of a call, in pipelines that give it two dimensions.
TABLES = ("img_ids", "txt_ids")


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a network.

    Attributes:
        rows: how many pictures, or halves of guided ones, are in it.
        batched: arguments with one entry a row: tensors along their first dimension, lists, or
            dictionaries of such.
        shared: arguments that are the same for all rows.
        loras: of each row; empty if no row has any.
    """

    rows: int
    batched: Mapping[str, Any]
    shared: Mapping[str, Any]
    loras: Sequence[LoraSet] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.batched, **self.shared}

    @property
    def form(self) -> Hashable:
        """Calls of equal form can be joined, if what they share is equal."""
        return (
            tuple((name, _form(value)) for name, value in sorted(self.batched.items())),
            tuple((name, _form(value, whole=True)) for name, value in sorted(self.shared.items())),
        )

    def parts(self, rows: int) -> Iterator["Call"]:
        """The call as calls of at most so many rows."""
        if self.rows <= rows:
            yield self
            return
        for start in range(0, self.rows, rows):
            stop = min(start + rows, self.rows)
            yield Call(
                stop - start,
                rows_of(self.batched, start, stop),
                self.shared,
                self.loras[start:stop],
            )


def take_apart(network: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """The call `network(*args, **kwargs)`; its first argument has an entry a row."""
    given = {**dict(zip(_parameters(type(network).forward), args, strict=False)), **kwargs}
    rows = len(next(value for value in given.values() if value is not None))
    batched = {name: value for name, value in given.items() if _has_rows(name, value, rows)}
    shared = {name: value for name, value in given.items() if name not in batched}
    return Call(rows, batched, shared)


def join(calls: Sequence[Call]) -> Call:
    """One call of the rows of several, of equal form."""
    if len(calls) == 1:
        return calls[0]
    names = calls[0].batched
    batched = {name: _joined([call.batched[name] for call in calls]) for name in names}
    loras = [lora_set for call in calls for lora_set in call.loras]
    return Call(sum(call.rows for call in calls), batched, calls[0].shared, loras)


Applied = Callable[[Sequence[LoraSet]], AbstractContextManager[None]]


def make(network: Callable[..., Any], call: Call, rows: int, applied: Applied) -> Any:
    """The network's output for a call, made in parts of at most so many rows.

    `applied` applies to each row its LoRAs, see `Adapters`.
    """
    outputs = []
    for part in call.parts(rows):
        with applied(part.loras):
            outputs.append(network(**part.arguments))
    return outputs[0] if len(outputs) == 1 else _joined(outputs)


def rows_of(value: Any, start: int, stop: int) -> Any:
    """Some rows of an argument or an output."""
    if value is None:
        return None
    if isinstance(value, Mapping):  # also diffusers' and transformers' outputs
        made = {name: rows_of(entry, start, stop) for name, entry in value.items()}
        return made if type(value) is dict else type(value)(**made)
    if isinstance(value, tuple):
        return tuple(rows_of(entry, start, stop) for entry in value)
    return value[start:stop]


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if first is None:
        return None
    if isinstance(first, Mapping):
        made = {name: _joined([value[name] for value in values]) for name in first}
        return made if type(first) is dict else type(first)(**made)
    if isinstance(first, tuple):
        return tuple(_joined(entries) for entries in zip(*values, strict=True))
    if isinstance(first, list):
        return [entry for value in values for entry in value]
    return torch.cat(list(values))


@cache
def _parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(forward).parameters)[1:]


def _has_rows(name: str, value: Any, rows: int) -> bool:
    if isinstance(value, torch.Tensor):
        table = name in TABLES and value.ndim == 2
        return value.ndim > 0 and value.shape[0] == rows and not table
    if isinstance(value, list):
        return len(value) == rows
    if isinstance(value, dict):
        return bool(value) and all(_has_rows(key, entry, rows) for key, entry in value.items())
    return False


def _form(value: Any, *, whole: bool = False) -> Hashable:
    """What must be equal for values to be joined; of lists only that they are lists."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape if whole else value.shape[1:]))
    if isinstance(value, dict):
        return tuple((name, _form(entry, whole=whole)) for name, entry in sorted(value.items()))
    if isinstance(value, list) and not whole:
        return "list"
    return repr(value)


def pad(call: Call, text: str, mask: str, length: int) -> Call:
    """The call with its texts, (rows, tokens, dim), padded to `length` tokens, and their mask."""
    states, known = call.batched[text], call.arguments.get(mask)
    missing = length - states.shape[1]
    if known is None:  # all tokens are the text's
        known = torch.ones(states.shape[:2], device=states.device)
    padded = {
        text: torch.nn.functional.pad(states, (0, 0, 0, missing)),
        mask: torch.nn.functional.pad(known.bool(), (0, missing)),
    }
    shared = {name: value for name, value in call.shared.items() if name != mask}
    return replace(call, batched={**call.batched, **padded}, shared=shared)


def form_without(call: Call, *names: str) -> Hashable:
    """The form of a call but for some arguments."""
    return Call(
        call.rows,
        {name: value for name, value in call.batched.items() if name not in names},
        {name: value for name, value in call.shared.items() if name not in names},
    ).form
