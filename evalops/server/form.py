"""Forms as clients send them: small fields, and the content of a file that is handed on as it comes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from evalops.server.problem import Problem

LONGEST_FORM = 64 << 10  # bytes of a form, the content of its file apart

# The parser warns of every broken form, which would let strangers fill the log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Form:
    """A form as it comes in. Its small fields are kept; the content of the part `file` is handed on."""

    def __init__(self, content_type: str | None, *, takes_file: bool) -> None:
        self.filename: str | None = None  # of the part `file`, once it has come
        self._takes_file = takes_file
        self._is_complete = False
        self._size = 0
        self._fields: dict[str, bytearray] = {}
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._part: bytearray | None = None  # None: the file
        self._content = bytearray()
        self._parser: MultipartParser | None = None
        kind, options = parse_options_header(content_type)
        if kind == b"multipart/form-data" and options.get(b"boundary"):
            with _reading():
                self._parser = MultipartParser(options[b"boundary"], self._callbacks())
        elif kind != b"application/x-www-form-urlencoded" or takes_file:
            raise Problem(400, "the request is no form: send `multipart/form-data` with a boundary")
        else:
            self._encoded = bytearray()

    def feed(self, piece: bytes) -> bytes:
        """Takes the next piece of the body and returns what of the file's content is in it."""
        if self._parser is None:
            self._encoded += piece
            return b""
        with _reading():
            self._parser.write(piece)
        content = bytes(self._content)
        self._content.clear()
        return content

    def close(self) -> dict[str, str]:
        """The fields, at the end of the body. Raises a Problem (400) where it is cut short or no UTF-8."""
        with _reading():
            if self._parser is None:
                encoded = self._encoded.decode("ascii")
                return dict(parse_qsl(encoded, errors="strict", max_num_fields=100))
            if not self._is_complete:
                raise Problem(400, "the form ends too early")
            return {name: value.decode() for name, value in self._fields.items()}

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._start,
            "on_part_data": self._add,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _start(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode()
        if name != "file":
            self._grow(len(name) + 100)  # a field costs something even when it is empty
            self._part = self._fields[name] = bytearray()
            return
        if not self._takes_file:
            raise Problem(400, "the content is not sent here: POST it to `/v1/files/upload`", param="file")
        if self.filename is not None:
            raise Problem(400, "the form has more than one `file`", param="file")
        self._part = None
        self.filename = options.get(b"filename", b"").decode()

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._part is None:
            self._content += data[start:end]
        else:
            self._grow(end - start)
            self._part += data[start:end]

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > LONGEST_FORM:
            raise Problem(413, f"the fields of the form are larger than {LONGEST_FORM:,} bytes together")

    def _end(self) -> None:
        self._is_complete = True


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except UnicodeError:
        raise Problem(400, "the form is not UTF-8") from None
    except (FormParserError, ValueError):
        raise Problem(400, "the form cannot be read: it is not what its content type says") from None
