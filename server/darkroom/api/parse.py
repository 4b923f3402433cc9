"""Request bodies: bytes to fields and files, and fields to models. Each body is parsed once."""

import contextlib
import functools
import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError
from pydantic_core import CoreSchema, SchemaValidator
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from darkroom.api.errors import ProblemError, field_errors, invalid, invalid_field, pointer
from darkroom.errors import message
from darkroom.responses import FieldError

Model = TypeVar("Model", bound=BaseModel)

FORM = "multipart/form-data"
JSON_BYTES = 16_384  # of a body that is JSON only and holds no pictures
SPOOL_BYTES = 2**18  # of an unpacked body in memory; what is larger goes to disk
CHUNK_BYTES = 2**16
UNREADABLE = "\N{REPLACEMENT CHARACTER}"  # what Werkzeug puts where bytes are not UTF-8
LISTED = re.compile(r"\[(\d{0,3})\]$")  # how forms name the parts of a list: image[], image[0]
ITEM = re.compile(r"(\w+)\[(\d{0,3})\]\[(\w+)\]$")  # and those of a list's objects: loras[][name]
FILE_PART = "file part"  # stands for a file where text is expected
JSON_PARTS = ("loras",)  # fields whose text in a form is JSON


@dataclass(frozen=True)
class Body:
    """A parsed request body.

    Attributes:
        fields: values by name. In a form they are text, except for JSON_PARTS and lists.
        files: bytes of file parts by name; those of lists are `name/0`, `name/1` and so on.
        spare: names of file parts that were not read.
        is_form: whether it was multipart; its values are converted from text, while those of
            JSON must have the right type already.
    """

    fields: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    spare: tuple[str, ...] = ()
    is_form: bool = False

    def validate(self, model: type[Model]) -> Model:
        """The fields as a model, in which text stands in place of each file; see `validate`."""
        alone = (name for name in self.files if "/" not in name)
        fields = {**self.fields, **dict.fromkeys(alone, FILE_PART)}
        return validate(model, fields, strict=not self.is_form)

    def digest(self, name: str) -> str:
        """SHA-256 of a name, the fields as they were sent, and the files; hexadecimal."""
        try:
            text = json.dumps([name, self.fields], sort_keys=True)
        except RecursionError:
            raise _malformed("it is nested too deeply", 422) from None
        return digest(text, self.files)


@dataclass(frozen=True)
class BodyReader:
    """Reads the current request's body. Every method raises ProblemError: 400, 413, 415 or 422.

    Unpacked bodies that are too large for memory are written to `folder`.
    """

    max_file_bytes: int
    folder: Path

    def read(
        self,
        file_fields: Collection[str],
        lists: Collection[str] = (),
        *,
        tolerant: bool = False,
    ) -> Body:
        """A body that is JSON or multipart.

        Args:
            file_fields: names that file parts may have.
            lists: those of them that several parts of a form may have, of text and of files, each
                part one item. Forms keep no order between text and files: where there are both,
                the parts are numbered, `name[0]` first. If tolerant, the first file is `name`, and
                the next ones are `name/1` and so on beside their names in `spare`.
            tolerant: read forms as other APIs' clients write them: `image[]` is `image`, a
                field may be both text and file, and other files are named in `spare`. Otherwise
                all of these are refused.
        """
        with self._unpacked():
            if request.mimetype == FORM:
                return self._read_form(file_fields, lists, tolerant)
            data = request.get_data()
            return Body(_json_fields(data, f"application/json or {FORM}") if data else {})

    def read_json(self, model: type[Model]) -> Model:
        """A small body that is JSON, as a model."""
        request.max_content_length = JSON_BYTES
        with self._unpacked():
            return Body(_json_fields(request.get_data(), "application/json")).validate(model)

    def read_any_json(self) -> Body:
        """A JSON body of whatever content type, as lenient servers read it.

        The last of several fields of one name counts. Numbers that are not finite become None.
        """
        with self._unpacked():
            fields = _load(request.get_data() or b"{}", tolerant=True)
        if not isinstance(fields, dict):
            raise _malformed("it is not an object", 422)
        return Body(fields)

    def _read_form(
        self, file_fields: Collection[str], lists: Collection[str], tolerant: bool
    ) -> Body:
        strict_lists = () if tolerant else lists
        fields, errors = _form_fields(strict_lists, tolerant)
        files: dict[str, bytes] = {}
        spare = []
        for name in strict_lists:
            parts, wrong = _listed(name)
            if wrong is not None:
                errors.append(FieldError(pointer=pointer(name), detail=wrong))
            elif parts:
                fields[name] = [part if isinstance(part, str) else FILE_PART for part in parts]
            for index, part in enumerate(parts):
                if not isinstance(part, str):
                    files[f"{name}/{index}"] = self._read_file(f"{name}/{index}", part)
        for sent_name, part in request.files.items(multi=True):
            plain = LISTED.sub("", sent_name)
            if plain in strict_lists:
                continue
            name = plain if tolerant else sent_name
            if name in file_fields and name not in files and (tolerant or name not in fields):
                files[name] = self._read_file(name, part)
            elif tolerant:
                spare.append(sent_name)
                if name in lists:
                    more = f"{name}/{sum(key.startswith(f'{name}/') for key in files) + 1}"
                    files[more] = self._read_file(more, part)
            else:
                known = name in file_fields
                detail = "is given more than once" if known else "takes no file"
                errors.append(FieldError(pointer=pointer(name), detail=detail))
        if errors:
            raise invalid(errors)
        return Body(fields, files, tuple(spare), is_form=True)

    def _read_file(self, name: str, part: FileStorage) -> bytes:
        data = part.stream.read(self.max_file_bytes + 1)
        check_bytes(name, len(data), self.max_file_bytes)
        return data

    @contextlib.contextmanager
    def _unpacked(self) -> Iterator[None]:
        """Undo `Content-Encoding: gzip`; all limits then apply to the unpacked body.

        Another coding is 415 (RFC 9110, 15.5.16).
        """
        environ = request.environ
        coding = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
        if coding in ("", "identity"):
            yield
            return
        if coding not in ("gzip", "x-gzip"):
            raise ProblemError(
                415,
                "content-encoding",
                "Unsupported content encoding",
                f"send the body as it is or with gzip, not {coding}",
                headers={"Accept-Encoding": "gzip"},
            )
        with SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(self.folder)) as unpacked:
            size = _gunzip(environ["wsgi.input"], unpacked, request.max_content_length)
            unpacked.seek(0)
            environ["wsgi.input"] = unpacked
            environ["CONTENT_LENGTH"] = str(size)
            yield


def validate(model: type[Model], values: Mapping[str, Any], *, strict: bool = False) -> Model:
    """Values as a model, converted to the right types unless they are strict JSON.

    ProblemError 422 has an entry for each wrong field.
    """
    try:
        if strict:
            found: Model = _strict_validator(model).validate_python(values)
            return found
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(field_errors(error, model.model_fields)) from None


def check_bytes(name: str, size: int, limit: int) -> None:
    """Raise ProblemError 422 if a picture is empty, 413 if it has more bytes than `limit`.

    The name is the field's, or `field/0` of a list's item.
    """
    where = pointer(*name.split("/"))
    if size == 0:
        raise invalid([FieldError(pointer=where, detail=message("empty_picture", "is empty"))])
    if size > limit:
        detail = message("file_too_large", "is larger than {limit} bytes", limit=limit)
        raise invalid([FieldError(pointer=where, detail=detail)], 413)


def digest(text: str, files: Mapping[str, bytes]) -> str:
    """SHA-256 of a text and files, hexadecimal."""
    found = sha256(text.encode())
    for name in sorted(files):
        found.update(name.encode() + sha256(files[name]).digest())
    return found.hexdigest()


def _gunzip(packed: IO[bytes], unpacked: IO[bytes], limit: int | None) -> int:
    """Unpack gzip, and stop at the limit. Returns the unpacked size in bytes."""
    size = 0
    try:
        with gzip.GzipFile(fileobj=packed, mode="rb") as source:
            while data := source.read(CHUNK_BYTES):
                size += len(data)
                if limit is not None and size > limit:
                    raise RequestEntityTooLarge
                unpacked.write(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        detail = f"the body is not gzip: {error}"
        title = "Malformed content encoding"
        raise ProblemError(400, "content-encoding", title, detail) from None
    return size


def _json_fields(data: bytes, wanted: str) -> dict[str, Any]:
    """The fields of a JSON body, whose content type must say so; `wanted` are those to name."""
    if data and not request.is_json:
        detail = f"send {wanted}, not {request.mimetype or 'nothing'}"
        if request.mimetype == "application/x-www-form-urlencoded":
            detail += "; with curl, add -H 'content-type: application/json'"
        raise ProblemError(415, "content-type", "Unsupported content type", detail)
    fields = _load(data, tolerant=False)
    if not isinstance(fields, dict):
        raise invalid_field(None, "Input should be an object")
    return fields


def _load(data: bytes, *, tolerant: bool) -> Any:
    try:
        if tolerant:
            found = json.loads(data, parse_float=_finite, parse_constant=lambda _: None)
        else:
            found = json.loads(data.decode(), object_pairs_hook=_each_once)
        if b"\\u" in data:  # only escapes make half of a surrogate pair, which is no text
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except json.JSONDecodeError as error:
        message = error.msg[:1].lower() + error.msg[1:]
        reason = f"{message} at line {error.lineno} column {error.colno}"
    except UnicodeError:
        reason = "it is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:
        reason = "a number is too long"
    raise _malformed(reason, 422 if tolerant else 400)


def _finite(text: str) -> float | None:
    """A number of JSON, which knows no largest one; None beyond the largest float."""
    value = float(text)
    return value if math.isfinite(value) else None


def _malformed(reason: str, status: int) -> ProblemError:
    return invalid_field(None, f"Invalid JSON: {reason}", status)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields. A repeated name is refused: parsers differ in which one counts."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = ", ".join(name for name, count in counts.items() if count > 1)
        raise invalid_field(None, f"holds {twice} more than once")
    return fields


def _listed(name: str) -> tuple[list[str | FileStorage], str | None]:
    """The parts of a form that are a list's items, in its order, and what is wrong with them."""
    numbered: dict[int, str | FileStorage] = {}
    texts: list[str | FileStorage] = []
    files: list[str | FileStorage] = []
    parts: Iterable[tuple[str, str | FileStorage]] = (
        *request.form.items(multi=True),
        *request.files.items(multi=True),
    )
    for sent_name, part in parts:
        found = LISTED.search(sent_name or "")
        if LISTED.sub("", sent_name or "") != name:
            continue
        if found is not None and found[1]:
            if int(found[1]) in numbered:
                return [], f"has two parts numbered {found[1]}"
            numbered[int(found[1])] = part
        else:
            (texts if isinstance(part, str) else files).append(part)
    if (texts and files) or (numbered and (texts or files)):
        return [], f"needs all its parts numbered, {name}[0] first: a form has no order of its own"
    if sorted(numbered) != list(range(len(numbered))):
        return [], f"has parts whose numbers are not 0 to {len(numbered) - 1}"
    return [part for _, part in sorted(numbered.items())] or texts or files, None


def _form_fields(lists: Collection[str], tolerant: bool) -> tuple[dict[str, Any], list[FieldError]]:
    """The text parts of a form but those of lists, and what is wrong with them."""
    fields: dict[str, Any] = {}
    objects: dict[str, dict[tuple[str, str], list[str]]] = {}
    errors = []
    for sent_name, values in request.form.lists():
        plain = LISTED.sub("", sent_name or "")
        if plain in lists:
            if any(UNREADABLE in value for value in values):
                errors.append(FieldError(pointer=pointer(plain), detail="is not UTF-8"))
            continue
        item = ITEM.fullmatch(sent_name or "") if tolerant else None
        if item is not None and item[1] in JSON_PARTS:
            objects.setdefault(item[1], {})[item[2], item[3]] = values
            continue
        name = plain if tolerant else sent_name
        if name is None or UNREADABLE in name or (tolerant and not name):
            errors.append(FieldError(pointer="#", detail="a part has no name that can be read"))
            continue
        if len(values) > 1 or name in fields:
            errors.append(FieldError(pointer=pointer(name), detail="is given more than once"))
        if UNREADABLE in values[0]:
            errors.append(FieldError(pointer=pointer(name), detail="is not UTF-8"))
        fields[name] = values[0]
    for name in JSON_PARTS:
        if name in fields:
            try:
                fields[name] = json.loads(fields[name], object_pairs_hook=_each_once)
            except (ValueError, RecursionError):
                errors.append(FieldError(pointer=pointer(name), detail="is not JSON"))
    for name, parts in objects.items():
        fields[name] = _objects(parts)
        if fields[name] is None:
            detail = f"has parts that do not belong together; number them: {name}[0][…]"
            errors.append(FieldError(pointer=pointer(name), detail=detail))
    return fields, errors


def _objects(parts: Mapping[tuple[str, str], list[str]]) -> list[dict[str, str]] | None:
    """A list of objects from a form's parts; None if it cannot be told what belongs together.

    Args:
        parts: texts by the item's number, which may be empty, and the key in it. A form keeps the
            order of the parts of one name only.
    """
    found: dict[int, dict[str, str]] = {}
    counts = set()
    for (number, key), values in parts.items():
        first = int(number) if number else 0
        counts.add((bool(number), 1 if number else len(values)))
        for index, value in enumerate(values, first):
            if key in found.setdefault(index, {}):
                return None
            found[index][key] = value
    together = len(counts) == 1 and sorted(found) == list(range(len(found)))
    return [found[index] for index in sorted(found)] if together else None


@functools.cache
def _strict_validator(model: type[BaseModel]) -> SchemaValidator:
    """A validator of parsed JSON that converts no types.

    Pydantic's own strict mode for Python values refuses what JSON cannot hold, such as members of
    enumerations and tuples. Here only numbers and booleans are strict.
    """
    # Without the argument, pydantic-core takes the validators that the classes have already.
    return SchemaValidator(_strict(model.__pydantic_core_schema__), _use_prebuilt=False)


def _strict(schema: Any) -> CoreSchema:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]  # type: ignore[return-value]
    if not isinstance(schema, dict):
        return schema  # type: ignore[no-any-return]
    kept = ("metadata", "serialization", "default")  # which are no schemas
    changed = {key: value if key in kept else _strict(value) for key, value in schema.items()}
    if schema.get("type") in ("int", "float", "bool"):
        changed["strict"] = True
    return changed
