"""What goes wrong, as the service's error envelope: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    416: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}


class Problem(Exception):
    """A request cannot be answered. `param` names the field it is about; `extra` stands beside the envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers
        self.extra = extra or {}

    def to_json(self) -> dict[str, Any]:
        """The body of the answer."""
        type_ = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            **self.extra,
            "error": {"message": self.message, "type": type_, "param": self.param, "code": self.code},
        }

    def response(self) -> JSONResponse:
        """The answer itself."""
        return JSONResponse(self.to_json(), status_code=self.status, headers=dict(self.headers or {}))
